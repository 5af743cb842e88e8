"""A database: from URL to engine, its transactions, and their common commits."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from liteflow.errors import StoreUnavailableError
from liteflow.signals import is_main_thread, undisturbed
from liteflow.store.dialects import sqlite_engine, sqlite_file, store_error
from liteflow.store.prepared import Prepared, prepare
from liteflow.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import URL, Executable

T = TypeVar("T")
MOST_MEMBERS = 50
FORK_PATIENCE = 1.0  # seconds that a fork waits for a commit under way


class Transaction:
    """A transaction under way, or a read, on a connection of the driver: text compiled before, parameters by place.

    Attributes:
        execute: runs a statement; returns its cursor.
        executemany: runs a statement once for each row of parameters; returns its cursor.
    """

    __slots__ = ("execute", "executemany")

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - a DBAPI connection
        self.execute: Callable[[str, Sequence[Any]], Any] = connection.execute  # the driver's own: quick
        self.executemany: Callable[[str, Iterable[Sequence[Any]]], Any] = connection.executemany


class Member(Protocol):
    """Takes part in a common commit. Its methods are called on the thread of who leads, in this order."""

    def wants_sync(self) -> bool:
        """Take up what is to be recorded; return whether it must be on the disk when the commit returns."""
        ...

    def apply(self, tx: Transaction) -> None:
        """Record it."""
        ...

    def committed(self) -> None:
        """The commit has succeeded."""
        ...

    def refused(self, error: Exception) -> None:
        """The commit has failed, or this member's part of it; nothing of it is recorded."""
        ...


class _Work:
    """One function as a member, whose caller waits."""

    def __init__(self, work: Callable[[Transaction], Any], *, sync: bool) -> None:
        self._work, self._sync = work, sync
        self.result: Any = None
        self.error: Exception | None = None
        self.done = threading.Event()

    def wants_sync(self) -> bool:
        return self._sync

    def apply(self, tx: Transaction) -> None:
        self.result = self._work(tx)

    def committed(self) -> None:
        self.done.set()

    def refused(self, error: Exception) -> None:
        self.error = error
        self.done.set()


class Database:
    """A database, opened once a process.

    Commits are led: the thread that finds nobody committing commits for all who queue meanwhile, so there is no writer thread,
    and a commit costs its share of one transaction.

    Args:
        store: a SQLAlchemy URL or engine.
        durability: ``"full"`` syncs every commit to the disk; ``"ack"`` those whose members ask for it.
    """

    def __init__(self, store: str | URL | Engine, *, durability: str = "ack") -> None:
        self.url = store.url if isinstance(store, Engine) else _url(store)
        if self.url.get_backend_name() != "sqlite":
            raise StoreUnavailableError(
                self.url.render_as_string(), "only SQLite is supported so far", "write sqlite:///path/to/file.db"
            )
        self.url_masked = self.url.render_as_string(hide_password=True)
        self.file = sqlite_file(self.url)
        self._always_sync = durability == "full"
        self._engine: Engine | None = None
        self._prepared: dict[Executable, Prepared] = {}
        self._queue: deque[Member] = deque()
        self._queue_lock = threading.Lock()
        self._leading = False
        self._connection_lock = threading.RLock()  # of the one connection of a database in memory
        self._writer: Any = None  # of a database in memory, its only connection
        self._syncs = False
        self._idle: list[Any] = []  # connections to read with
        self._opened: list[Any] = []
        self._rests = False
        _forkable.add(self)

    # -- opening ---------------------------------------------------------------------------------------------------

    def open(self, *, must_exist: bool = False, read_only: bool = False) -> None:
        """Connect, and bring a SQLite file to the schema of this version: a new one at once, an older one after a backup.

        Args:
            must_exist: do not create a file that is missing.
            read_only: have a short look, and change nothing; a schema that is not this version's is refused.

        Raises:
            StoreError: it cannot be opened, is not LiteFlow's, or is of a newer schema; nothing is changed.
        """
        from liteflow.store import schema  # noqa: PLC0415 - the two need each other

        self.connect(must_exist=must_exist, read_only=read_only)
        if read_only:
            schema.check(self)
        else:
            schema.bring_up(self)

    def connect(self, *, must_exist: bool = False, read_only: bool = False) -> None:
        """Connect, whatever the schema is."""
        if (must_exist or read_only) and self.file is not None and not self.file.exists():
            raise StoreUnavailableError(self.url_masked, "there is no such file", "check the path; `flow.run` makes a new store")
        self._refuse_if_spoilt()
        with self.errors():
            self._engine = sqlite_engine(self.url, self.file, must_exist=must_exist, read_only=read_only)
            self._engine.connect().close()

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine."""
        if self._engine is None:
            raise StoreUnavailableError(self.url_masked, "it is not open in this process", "open it first, in this process")
        return self._engine

    def dispose(self) -> None:
        """Close all connections."""
        opened, self._opened = self._opened, []
        for connection in opened:
            connection.close()
        self._writer, self._idle = None, []
        if self._engine is not None:
            self._engine.dispose()

    def rest(self) -> None:
        """Let no commit be under way while this process forks."""
        self._rests = self._connection_lock.acquire(timeout=FORK_PATIENCE)

    def go_on(self) -> None:
        """Commit again: the process has forked, and this is the parent."""
        with suppress(RuntimeError):  # the commit under way took too long to wait for
            self._connection_lock.release()

    def forget(self) -> None:
        """Close the parent's connections and begin with none: this is a forked child.

        SQLite keeps account of its locks by process. With the parent's connections open here, it would believe that this process
        holds what they had locked, and the parent would delete the log that this process writes.
        """
        resting = [*self._idle, self._writer] if self._rests else self._idle
        for connection in self._opened:
            if connection in resting and not connection.in_transaction:
                connection.close()
            else:  # another thread was using it, and closing it would damage the file
                _spoilt.add(self.file)
        if self.file is None:
            self._engine = None
        elif self._engine is not None:
            self._engine.dispose(close=False)
        self._opened, self._writer, self._idle = [], None, []
        self._queue, self._queue_lock, self._leading = deque(), threading.Lock(), False
        self._connection_lock = threading.RLock()

    def _refuse_if_spoilt(self) -> None:
        if self.file in _spoilt:
            what = "this process was forked while another thread of its parent was using it"
            raise StoreUnavailableError(self.url_masked, what, "fork before its first use, or start processes with 'spawn'")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise what the database says as a `StoreError` that says what to do."""
        try:
            yield
        except Exception as error:
            meant = self._meaning(error)
            if meant is error:
                raise
            raise meant from meant.__cause__

    def _meaning(self, error: Exception) -> Exception:
        """Return what an error of the database means to its user; any other error as it is."""
        meant = store_error(error, self.url_masked)
        if meant is None:
            return error
        meant.__cause__ = getattr(error, "orig", None) or error
        return meant

    def _writing(self) -> Any:  # noqa: ANN401 - a DBAPI connection
        """Return the one connection that writes; of a database in memory, the only one."""
        if self._writer is None:
            self._writer, self._syncs = self._connect_raw(), False
        return self._writer

    def _connect_raw(self) -> Any:  # noqa: ANN401 - a DBAPI connection
        self._refuse_if_spoilt()
        connection = self.engine.raw_connection()
        driver = connection.driver_connection
        if self.file is not None:
            connection.detach()
            self._opened.append(driver)
        return driver

    def compile(self, statement: Executable) -> Prepared:
        """Return a statement in this database's dialect, compiled once."""
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = self._prepared[statement] = prepare(statement, self.engine.dialect)
        return prepared

    # -- reading ---------------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Give statements to read with, each of which sees what is committed by then."""
        if self.file is None:
            with self._connection_lock, self.errors():
                yield Transaction(self._writing())
            return
        with self.errors():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect_raw()
            try:
                yield Transaction(connection)
            finally:
                self._idle.append(connection)

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, work: Callable[[Transaction], T], *, sync: bool = False) -> T:
        """Run *work* in a transaction, and return what it returns once that has committed.

        What *work* raises rolls back what it did, and is raised here.

        Args:
            work: may be called on another thread.
            sync: have it on the disk when this returns.
        """
        member = _Work(work, sync=sync)
        self.join_commit(member)
        member.done.wait()
        if member.error is not None:
            raise member.error
        return member.result  # type: ignore[no-any-return] # what work gave

    def join_commit(self, member: Member) -> None:
        """Have *member* take part in the next commit, and lead that if nobody does."""
        with self._queue_lock:
            self._queue.append(member)
            if self._leading:
                return
            self._leading = True
        self._lead()

    def _lead(self) -> None:
        """Commit for all who queue, until nobody does."""
        more, commit = True, self._commit_undisturbed if is_main_thread() else self._commit_next
        try:
            while more:
                more = commit()
        finally:
            if more:  # Ctrl-C between two commits: somebody else goes on
                threading.Thread(target=self._lead, name="liteflow-commit", daemon=True).start()

    def _commit_undisturbed(self) -> bool:
        with undisturbed():
            return self._commit_next()

    def _commit_next(self) -> bool:
        """Commit for those who queue, and tell each; return whether this thread still leads.

        A member whose part cannot be recorded fails alone.
        """
        members = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_MEMBERS))]
        refused: dict[int, Exception] = {}
        try:
            with self._connection_lock:
                self._transact(members, refused)
        except Exception as error:  # noqa: BLE001 - handed to those it concerns
            meant = self._meaning(error)
            refused = {id(member): refused.get(id(member), meant) for member in members}
        for member in members:
            self._tell(member, refused.get(id(member)))
        with self._queue_lock:
            self._leading = bool(self._queue)
            return self._leading

    @staticmethod
    def _tell(member: Member, error: Exception | None) -> None:
        """Tell a member how its part went. What it makes of that concerns it only: the others are still to be told."""
        try:
            if error is None:
                member.committed()
            else:
                member.refused(error)
        except Exception as failure:  # noqa: BLE001 - as said
            logger.exception("a commit could not be followed up")
            if error is None:
                Database._tell(member, failure)

    def _transact(self, members: list[Member], refused: dict[int, Exception]) -> None:
        connection = self._writing()
        sync = self._always_sync
        for member in members:
            try:
                sync |= member.wants_sync()
            except Exception as error:  # noqa: BLE001 - it concerns this member only
                refused[id(member)] = error
        if sync is not self._syncs:  # not possible inside a transaction
            connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
            self._syncs = sync
        connection.execute("BEGIN IMMEDIATE")
        try:
            tx = Transaction(connection)
            for member in members:
                if id(member) not in refused:
                    self._apply(member, tx, refused, alone=len(members) == 1)
            self.engine.dialect.do_commit(connection)
        except BaseException:
            if connection.in_transaction:
                self.engine.dialect.do_rollback(connection)
            raise

    def _apply(self, member: Member, tx: Transaction, refused: dict[int, Exception], *, alone: bool) -> None:
        if alone:
            member.apply(tx)
            return
        tx.execute("SAVEPOINT member", ())
        try:
            member.apply(tx)
        except Exception as error:
            refused[id(member)] = self._meaning(error)
            if not self._writer.in_transaction:  # a full disk, say, has ended it for everybody
                raise
            tx.execute("ROLLBACK TO member", ())
        tx.execute("RELEASE member", ())


def _url(store: str | URL) -> URL:
    try:
        return make_url(store)
    except SQLAlchemyError:  # whose text may show a password
        what = "the store is no SQLAlchemy URL, and no engine"
        raise StoreUnavailableError(f"of type {type(store).__name__}", what, "write sqlite:///path/to/file.db") from None


_forkable: weakref.WeakSet[Database] = weakref.WeakSet()


_spoilt: set[Path | None] = set()  # files that SQLite takes as locked by this process, a forked child, though they are not


def _at_fork(act: Callable[[Database], None]) -> Callable[[], None]:
    def act_on_all() -> None:
        for database in list(_forkable):
            act(database)

    return act_on_all


os.register_at_fork(
    before=_at_fork(Database.rest), after_in_parent=_at_fork(Database.go_on), after_in_child=_at_fork(Database.forget)
)
