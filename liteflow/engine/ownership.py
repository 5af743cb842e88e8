"""Who drives a run: leases, heartbeats, and telling whether an owner is gone.

A process that died on this machine is known by boot id, pid namespace, pid and process start time, so its runs are free at once;
those of a process elsewhere are free when its lease expires. What makes a late commit of a former owner impossible is not the
lease but the fencing token of the context, which every takeover raises.
"""

from __future__ import annotations

import os
import platform
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liteflow.clock import from_text, new_id, to_text

if TYPE_CHECKING:
    from datetime import datetime

    from liteflow.clock import Clock
    from liteflow.engine.ticker import Ticker
    from liteflow.store.database import Transaction
    from liteflow.store.store import Store

LEASE = timedelta(seconds=30)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def machine() -> str:
    """Return what names this machine, since it was started, and the pid namespace of this process."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        namespace = ""
    return f"{_read('/proc/sys/kernel/random/boot_id') or platform.node()} {namespace}".strip()


def process_started(pid: int) -> str:
    """Return when a process of this machine started, in clock ticks since boot; empty if there is none."""
    stat = _read(f"/proc/{pid}/stat")
    fields = stat.rpartition(")")[2].split()
    return "" if not fields or fields[0] in "ZX" else fields[19]


def is_gone(owner: dict[str, Any] | None, now: datetime) -> bool:
    """Whether the process of this row of ``owners`` cannot be at work on its runs any more."""
    if owner is None or owner["ended_at"] is not None:
        return True
    if owner["machine"] == machine():
        if owner["process_started"]:
            return bool(process_started(owner["pid"]) != owner["process_started"])
        return owner["pid"] != os.getpid() and not Path(f"/proc/{owner['pid']}").exists()
    left = from_text(owner["leased_until"]) - now
    return left <= timedelta(0) or left > 2 * LEASE  # a clock that far ahead must not keep the run for ever


class Ownership:
    """This process as an owner of runs.

    Args:
        store: where it is registered, with the first run.
        clock: its time.
        ticker: what renews its lease.
    """

    def __init__(self, store: Store, clock: Clock, ticker: Ticker) -> None:
        self.id = new_id()
        self._store, self._clock, self._ticker = store, clock, ticker
        self._lock = threading.Lock()
        self._registered = self._closed = False

    def register(self, tx: Transaction) -> None:
        """Record this process as an owner, once, before its first run."""
        with self._lock:
            if self._registered or self._store.owner(tx, self.id) is not None:  # by another first run, in this very commit
                return
            self._store.register_owner(tx, {
                "id": self.id, "machine": machine(), "pid": os.getpid(), "process_started": process_started(os.getpid()),
                "leased_until": to_text(self._clock.now() + LEASE),
            })  # fmt: skip

    def registered(self) -> None:
        """The registration is committed: keep the lease."""
        with self._lock:
            if self._registered:
                return
            self._registered = True
        self._ticker.call_in(LEASE.total_seconds() / 3, self._renew)

    def _renew(self) -> None:
        if self._closed:
            return
        self._ticker.call_in(LEASE.total_seconds() / 3, self._renew)
        self._store.database.write(lambda tx: self._store.renew_lease(tx, self.id, until=self._clock.now() + LEASE))

    def is_gone(self, owner: dict[str, Any] | None) -> bool:
        """Whether the process of this row of ``owners`` cannot be at work on its runs any more."""
        return is_gone(owner, self._clock.now())

    def close(self) -> None:
        """End this process's ownership: whoever wants may take the runs it leaves."""
        self._closed = True
        if self._registered:
            self._store.database.write(lambda tx: self._store.end_owner(tx, self.id, now=self._clock.now()), sync=True)
