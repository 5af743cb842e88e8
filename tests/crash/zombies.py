"""Processes that are stopped, lose their run to an heir, and go on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from tests.crash.harness import Told, differences, reused_numbers, told

if TYPE_CHECKING:
    from tests.crash.harness import Place, Ward

TABLES = ("contexts", "runs", "tasks", "attempts", "writes", "chunks", "steps")
LOST = "LeaseLostError"


def records(place: Place) -> dict[str, list[Any]]:
    """Return all that is recorded of runs."""
    return {table: place.ask(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in TABLES}  # noqa: S608 - names from above


def expire(place: Place) -> None:
    """Make all owners look like processes of another machine, which have not been heard of for long."""
    place.ask("UPDATE owners SET machine = 'elsewhere', leased_until = '2000-01-01T00:00:00.000000Z'")


def outlived(  # noqa: PLR0913 - where the zombie stops, and how far its heir comes
    place: Place, shape: str, calm: Told, *, at: str, when: str, count: int, heir_stops: int, mutant: str = "",
) -> list[str] | None:  # fmt: skip
    """Stop a victim, have an heir take its run over, let the victim go on; return what is wrong.

    Args:
        place: a store of its own.
        shape: the flow.
        calm: what it tells when nobody is stopped.
        at: where the victim stops; see `Order`.
        when: as above.
        count: as above.
        heir_stops: after how many commits the heir stops, until the victim has ended; 0 to let it end first.
        mutant: the bug to plant.

    Returns:
        ``None`` if the victim had ended before that point, or nothing was left to take over.
    """
    zombie = place.order([shape], at=at, when=when, count=count, blow=signal.SIGSTOP, mutant=mutant)
    stopped = place.parent.carry_out(zombie)
    if not stopped["stopped"]:
        return None
    is_live = place.ask("SELECT status FROM runs") == [("running",)]
    if not is_live:
        place.parent.let_go_on(stopped)
        return None
    expire(place)
    heir = place.order([shape], when="after" if heir_stops else "never", count=heir_stops, blow=signal.SIGSTOP, mutant=mutant)
    heir_stopped = place.parent.carry_out(heir)
    before = records(place)
    place.parent.let_go_on(stopped)
    found = [f"the zombie has changed {table}" for table, rows in records(place).items() if rows != before[table]]
    if told(zombie).stood != {shape: LOST}:
        found.append(f"the zombie stood still with {told(zombie).stood}")
    if heir_stopped["stopped"]:
        place.parent.let_go_on(heir_stopped)
    return [*found, *differences([shape], calm, told(heir)), *reused_numbers([told(heir)]), *place.faults()]


def all_outlived(  # noqa: PLR0913 - as above
    ward: Ward, shape: str, calm: Told, *, at: str, when: str, heir_stops: int, mutant: str = "", until_found: bool = False
) -> tuple[int, list[str]]:  # fmt: skip
    """Stop a victim at the first place, another at the second, and so on until there is nothing to take over.

    Returns:
        How many zombies there were, and what was wrong.
    """
    wrong: list[str] = []
    count = 0
    while not (until_found and ward.enough.is_set()):
        with ward.place() as place:
            found = outlived(
                place, shape, calm, at=at, when=when, count=count + 1, heir_stops=heir_stops, mutant=mutant
            )  # fmt: skip
        if found is None:
            break
        if found:
            ward.enough.set()
        count += 1
        wrong += [f"{shape}, stopped {when} {at} {count}, heir stops {heir_stops}: {what}" for what in found]
    return count, wrong
