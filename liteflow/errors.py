"""Everything that can go wrong, as one tree.

LiteFlowError                      LF000
├── TaskNotFoundError              LF101   (LookupError)
├── ContextKeyError                LF102   (KeyError)
├── ContextBusyError               LF103
├── DeadlockError                  LF104
├── GetTimeoutError                LF105   (TimeoutError)
├── InvalidKeyError                LF106   (ValueError)
├── NotATaskError                  LF107   (TypeError)
├── InvalidOptionError             LF108   (ValueError)
├── AwaitNeededError               LF109   (RuntimeError)
├── LimitExceededError             LF110
├── TaskFailedError                LF201
├── TaskTimeoutError               LF202
├── WorkerLostError                LF203
├── RunCancelledError              LF204
├── TerminalError                  LF205
├── ConflictError                  LF206
├── RunNotFoundError               LF301   (LookupError)
├── RunConflictError               LF302
├── LeaseLostError                 LF303
├── RunPausedError                 LF304
├── SerializationError             LF401   (TypeError)
└── StoreError                     LF500
    ├── SchemaTooNewError          LF501
    ├── SchemaOutdatedError        LF502
    ├── StoreUnavailableError      LF503
    ├── StoreFullError             LF504
    ├── StoreReadOnlyError         LF505
    └── StoreCorruptError          LF506

Each carries its facts as attributes, survives pickling, and says what went wrong, with which thing, and what to do.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from liteflow.model import Failure


class LiteFlowError(Exception):
    """The root of every error that LiteFlow raises; ``code`` names its page in ``docs/errors.md``."""

    code: ClassVar[str] = "LF000"

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross processes with all facts, whatever arguments the class takes."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[LiteFlowError], args: tuple[Any, ...], facts: dict[str, Any]) -> LiteFlowError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(facts)
    return error


def _guess(name: str, known: Iterable[str], otherwise: str) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise


class TaskNotFoundError(LiteFlowError, LookupError):
    """A task was named that the flow does not have."""

    code = "LF101"

    def __init__(self, task_id: str, known: Iterable[str] = ()) -> None:
        self.task_id, self.known = task_id, tuple(sorted(known))
        has = f"this flow has: {', '.join(self.known)}" if self.known else "this flow has no tasks"
        super().__init__(f"Task {task_id} not found; {_guess(str(task_id), self.known, has)}")


class ContextKeyError(LiteFlowError, KeyError):
    """A context key was read that nothing has written."""

    code = "LF102"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"Key {key} not found in context")

    def __str__(self) -> str:
        """Return the sentence itself; ``KeyError`` would put it in quotes."""
        return str(self.args[0])


class ContextBusyError(LiteFlowError):
    """A context has a live or interrupted run and admits no second one."""

    code = "LF103"

    def __init__(self, context_id: str, run_id: str, *, interrupted: bool = False) -> None:
        self.context_id, self.run_id, self.interrupted = context_id, run_id, interrupted
        state = f"holds the interrupted run {run_id}" if interrupted else f"has the live run {run_id}"
        cure = f"finish it with flow.resume({run_id!r})" if interrupted else f"wait for it with flow.get_run({run_id!r}).wait()"
        super().__init__(
            f"Context {context_id} {state}; {cure}, or give this run a context of its own: flow.run(..., context=Context())"
        )


class DeadlockError(LiteFlowError):
    """A wait that nothing can end."""

    code = "LF104"

    def __init__(self, key: str, waiting: Mapping[str, str]) -> None:
        self.key, self.waiting = key, dict(waiting)
        who = ", ".join(f"{waiter} waits for {wanted}" for waiter, wanted in self.waiting.items())
        super().__init__(
            f"Nothing that runs or is dispatched can produce key {key}: {who}; "
            "dispatch the task that writes it, or read it with a default: ctx.get(key, None)"
        )


class GetTimeoutError(LiteFlowError, TimeoutError):
    """A wait took longer than its timeout."""

    code = "LF105"

    def __init__(self, what: str, timeout: float) -> None:
        self.what, self.timeout = what, timeout
        super().__init__(f"{what} was not there within {timeout:g} s; wait longer, or look at what it waits for")


class InvalidKeyError(LiteFlowError, ValueError):
    """A context key, a task id or a run id that cannot be stored."""

    code = "LF106"

    def __init__(self, kind: str, value: object, why: str) -> None:
        self.kind, self.value, self.why = kind, repr(value)[:80], why
        super().__init__(f"{kind} {self.value} {why}")


class NotATaskError(LiteFlowError, TypeError):
    """A thing was registered as a task, or named as one, that cannot be one."""

    code = "LF107"

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why
        super().__init__(f"{name} cannot be a task: {why}")


class InvalidOptionError(LiteFlowError, ValueError):
    """An option was given a value that makes no sense."""

    code = "LF108"

    def __init__(self, option: str, value: object, why: str) -> None:
        self.option, self.value, self.why = option, repr(value)[:80], why
        super().__init__(f"{option}={self.value} {why}")


class AwaitNeededError(LiteFlowError, RuntimeError):
    """Something blocking was called in a coroutine, or something to be awaited was not."""

    code = "LF109"

    def __init__(self, what: str, write: str) -> None:
        self.what, self.write = what, write
        super().__init__(f"{what}; write {write}")


class LimitExceededError(LiteFlowError):
    """A task or a run has grown beyond what its flow allows."""

    code = "LF110"

    def __init__(self, what: str, limit: str, most: int) -> None:
        self.what, self.limit, self.most = what, limit, most
        super().__init__(f"{what}, more than {most}; if that is meant, raise the limit: Flow(limits=Limits({limit}=...))")


class TaskFailedError(LiteFlowError):
    """A run failed because a task of it did; ``__cause__`` is the task's exception where it still exists."""

    code = "LF201"

    def __init__(self, task_id: str, key: str, run_id: str, failure: Failure) -> None:
        self.task_id, self.key, self.run_id = task_id, key, run_id
        self.cause_type, self.traceback = failure.type, failure.traceback
        short = failure.type.rpartition(".")[2]
        super().__init__(
            f"Task {key} of run {run_id} failed with {short}: {failure.message}; "
            f"what completed is kept: mend the cause, then flow.resume({run_id!r})"
        )


class TaskTimeoutError(LiteFlowError):
    """An attempt ran longer than its task allows."""

    code = "LF202"

    def __init__(self, key: str, timeout: float) -> None:
        self.key, self.timeout = key, timeout
        super().__init__(f"Task {key} ran longer than its timeout of {timeout:g} s and was given up")


class WorkerLostError(LiteFlowError):
    """The worker that ran an attempt died."""

    code = "LF203"

    def __init__(self, key: str, why: str) -> None:
        self.key, self.why = key, why
        super().__init__(f"The worker that ran task {key} was lost: {why}")


class RunCancelledError(LiteFlowError):
    """A run was cancelled, or stopped while this attempt was still at work."""

    code = "LF204"

    def __init__(self, run_id: str, why: str) -> None:
        self.run_id, self.why = run_id, why
        super().__init__(f"Run {run_id} was stopped: {why}")


class TerminalError(LiteFlowError):
    """Raised by a task to fail for good, whatever its retry policy says."""

    code = "LF205"


class ConflictError(LiteFlowError):
    """What an attempt was to commit rests on values that others have changed since; it is run again on fresh ones."""

    code = "LF206"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"Task {key} had read what others have changed since; it is run again on fresh values")


class RunNotFoundError(LiteFlowError, LookupError):
    """No run has this id."""

    code = "LF301"

    def __init__(self, run_id: str, store: str) -> None:
        self.run_id, self.store = run_id, store
        super().__init__(f"Run {run_id} not found in {store}; flow.runs() lists the runs that are there")


class RunConflictError(LiteFlowError):
    """A run id was used again for another start, or a run was asked for what its state forbids."""

    code = "LF302"

    def __init__(self, run_id: str, why: str) -> None:
        self.run_id, self.why = run_id, why
        super().__init__(f"Run {run_id} {why}")


class LeaseLostError(LiteFlowError):
    """This process no longer owns the run, so nothing more of it is recorded here."""

    code = "LF303"

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"Run {run_id} was taken over by another process; nothing more of it is recorded from here. "
            f"Follow it with flow.get_run({run_id!r}).wait()"
        )


class RunPausedError(LiteFlowError):
    """A run stands still until somebody resumes it."""

    code = "LF304"

    def __init__(self, run_id: str, reason: str) -> None:
        self.run_id, self.reason = run_id, reason
        super().__init__(f"Run {run_id} is paused: {reason}; go on with flow.resume({run_id!r})")


class SerializationError(LiteFlowError, TypeError):
    """A value that cannot be stored, or stored text that cannot be read here."""

    code = "LF401"

    def __init__(self, why: str, *, key: str | None = None, path: str = "", type_name: str | None = None) -> None:
        self.why, self.key, self.path, self.type_name = why, key, path, type_name
        where = " at ".join(part for part in (f"key {key}" if key else "", path) if part)
        super().__init__(f"{why} ({where})" if where else why)

    def at_key(self, key: str) -> Self:
        """The same error, naming the context key it was met under."""
        return type(self)(self.why, key=key, path=self.path, type_name=self.type_name)


class StoreError(LiteFlowError):
    """The database refused or failed; ``store`` is its URL with the password masked."""

    code = "LF500"

    def __init__(self, store: str, what: str, cure: str) -> None:
        self.store, self.what, self.cure = store, what, cure
        super().__init__(f"Store {store}: {what}; {cure}")


class SchemaTooNewError(StoreError):
    """The database was written by a newer LiteFlow."""

    code = "LF501"


class SchemaOutdatedError(StoreError):
    """The database has an older schema that is not upgraded by itself."""

    code = "LF502"


class StoreUnavailableError(StoreError):
    """The database cannot be reached, opened or locked."""

    code = "LF503"


class StoreFullError(StoreError):
    """The disk, or a limit of the database, is full."""

    code = "LF504"


class StoreReadOnlyError(StoreError):
    """The database cannot be written."""

    code = "LF505"


class StoreCorruptError(StoreError):
    """The database is damaged, or is no LiteFlow database."""

    code = "LF506"
