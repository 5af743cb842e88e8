"""When what has happened in a run is committed: at once, or with what comes meanwhile, but soon."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from liteflow.engine import inbox as module
from liteflow.engine.decision import Request
from liteflow.engine.events import Done, Halt
from liteflow.engine.inbox import MOST, SECONDS, Inbox
from liteflow.model import RunStatus

if TYPE_CHECKING:
    from liteflow.engine.attempt import Attempt

HALT = Halt(RunStatus.PAUSED, "enough", at_once=True)


def done(*next_tasks: str) -> Done:
    return Done(cast("Attempt", SimpleNamespace()), "1", [Request(task) for task in next_tasks])


class Pacer:
    """Counts how often it was asked to call, and is the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.time = 0, 100.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.time))

    def call(self) -> None:
        self.asked += 1


@pytest.fixture
def pacer(monkeypatch: pytest.MonkeyPatch) -> Pacer:
    return Pacer(monkeypatch)


@pytest.fixture
def inbox(pacer: Pacer) -> Inbox:
    return Inbox(pacer.call)


def test_a_completion_is_committed_at_once_if_its_worker_has_nothing_else_to_do(inbox: Inbox, pacer: Pacer):
    assert inbox.put([done()], may_wait=False)
    assert (inbox.is_queued, pacer.asked) == (True, 0)


def test_a_commit_is_queued_for_once(inbox: Inbox):
    inbox.put([done()], may_wait=False)

    assert not inbox.put([done()], may_wait=False)
    assert not inbox.put([HALT], may_wait=True)


def test_completions_that_may_wait_ask_the_pacer_once(inbox: Inbox, pacer: Pacer):
    assert [inbox.put([done()], may_wait=True) for _ in range(3)] == [False] * 3
    assert (inbox.is_queued, pacer.asked) == (False, 1)


@pytest.mark.parametrize("event", [HALT, None])
def test_what_is_no_completion_does_not_wait_nor_what_came_before_it(inbox: Inbox, event: Any):
    first = done()
    inbox.put([first], may_wait=True)

    assert inbox.put([event], may_wait=True)
    inbox.take()
    assert inbox.taken == [first, event]


def test_the_fiftieth_completion_does_not_wait(inbox: Inbox):
    assert [inbox.put([done()], may_wait=True) for _ in range(MOST)] == [False] * (MOST - 1) + [True]
    assert inbox.is_full


def test_a_completion_does_not_wait_if_one_has_waited_long_enough(inbox: Inbox, pacer: Pacer):
    inbox.put([done()], may_wait=True)
    pacer.time += SECONDS / 2
    assert not inbox.put([done()], may_wait=True)
    pacer.time += SECONDS

    assert inbox.put([done()], may_wait=True)


def test_the_pacer_is_told_whether_anything_waits_and_is_asked_again_afterwards(inbox: Inbox, pacer: Pacer):
    inbox.put([done()], may_wait=True)
    assert inbox.overdue()
    inbox.take()
    inbox.committed()
    assert not inbox.overdue()

    inbox.put([done()], may_wait=True)
    assert pacer.asked == 2


def test_a_commit_takes_so_many_and_leaves_the_rest_queued_for_the_next(inbox: Inbox):
    events = [done() for _ in range(MOST + 1)]
    inbox.put(events, may_wait=False)

    inbox.take()
    assert (inbox.taken, inbox.has_more, inbox.is_queued) == (events[:MOST], True, True)
    assert inbox.committed() == events[:MOST]
    inbox.take()
    assert (inbox.taken, inbox.has_more, inbox.is_queued) == (events[MOST:], False, False)


def test_workers_are_far_ahead_until_the_commit_under_way_has_succeeded(inbox: Inbox):
    inbox.put([done() for _ in range(MOST)], may_wait=False)
    inbox.take()
    assert inbox.is_full

    inbox.committed()
    assert not inbox.is_full


def test_it_tells_what_a_commit_takes(inbox: Inbox):
    inbox.put([done("a"), done(), done()], may_wait=True)
    inbox.take()
    assert (inbox.completions, inbox.leaves, inbox.is_waited_for) == (3, 2, False)

    inbox.put([None, HALT], may_wait=False)
    inbox.take()
    assert (inbox.completions, inbox.leaves, inbox.is_waited_for) == (0, 0, True)


def test_a_look_at_what_others_have_written_is_waited_for_by_nobody(inbox: Inbox):
    inbox.put([None], may_wait=False)
    inbox.take()

    assert not inbox.is_waited_for


def test_when_it_closes_nothing_is_forgotten_of_what_a_commit_took_and_of_what_came_since(inbox: Inbox):
    taken, since = done(), done()
    inbox.put([taken], may_wait=False)
    inbox.take()
    inbox.put([since], may_wait=True)

    assert inbox.close() == [taken, since]
