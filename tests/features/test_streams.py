"""Chunks are recorded whether or not anyone listens, and can be followed by anyone, at any time, in order (R9)."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, LiteFlowError, NextTask, StreamChunk, TaskFailedError, TaskOutput
from tests.features.children import Child, output_of
from tests.features.records import rows
from tests.features.waiting import Helper, passes, until

if TYPE_CHECKING:
    from collections.abc import Iterable


def values(chunks: Iterable[StreamChunk]) -> list[object]:
    return [chunk.value for chunk in chunks]


def add_talk(flow: Flow, count: int = 3) -> None:
    @flow.task("talk")
    def talk(ctx: Context):
        for n in range(count):
            ctx.stream(n)
        return "output"


# ---------------------------------------------------------------- what a chunk carries


def test_a_chunk_carries_its_number_the_instance_and_the_attempt_and_an_output_is_the_last(flow: Flow):
    @flow.task("fan")
    def fan(ctx: Context):
        return TaskOutput("fan", [NextTask("part", spawn_another=True) for _ in range(2)])

    @flow.task("part")
    def part(ctx: Context):
        ctx.get_stream().put(StreamChunk("said to be from", ctx.key))
        return ctx.key

    chunks = list(flow.stream("fan"))

    assert [chunk.seq for chunk in chunks] == sorted(chunk.seq for chunk in chunks)
    assert chunks[0] == StreamChunk("fan", "fan")
    for key in ("part", "part#2"):
        own = [chunk for chunk in chunks if chunk.key == key]
        assert own == [StreamChunk("said to be from", key), StreamChunk("part", key)]
        assert {chunk.attempt for chunk in own} == {1}


def test_chunks_of_any_storable_value_come_back_equal_and_of_the_same_type(flow: Flow):
    given = [(1, 2), {1, 2}, None, b"x", float("inf"), {"a": [1]}]
    flow.add_task("talk", lambda ctx: [ctx.stream(value) for value in given] and None)

    assert values(flow.stream("talk")) == [*given, None]


# ---------------------------------------------------------------- replaying and following


def test_a_stream_can_be_replayed_any_number_of_times_after_the_run_also_if_nobody_listened(flow: Flow):
    add_talk(flow)
    run = flow.start("talk")
    run.result(20)

    for view in ("live", "final"):
        assert values(run.stream(view=view)) == [0, 1, 2, "output"]
        assert values(flow.get_run(run.id).stream(view=view)) == [0, 1, 2, "output"]


@pytest.mark.parametrize("view", ["live", "final"])
def test_after_gives_only_what_comes_after_that_number(flow: Flow, view: str):
    add_talk(flow)
    run = flow.start("talk")
    run.result(20)
    numbers = [chunk.seq for chunk in run.stream()]

    rest = [[chunk.seq for chunk in flow.get_run(run.id).stream(after=after, view=view)] for after in [0, *numbers, 999]]

    assert rest == [numbers[n:] for n in range(len(numbers) + 1)] + [[]]


def test_chunks_are_delivered_while_the_task_runs(flow: Flow):
    go_on = [threading.Event() for _ in range(3)]

    @flow.task("talk")
    def talk(ctx: Context):
        for n, event in enumerate(go_on):
            ctx.stream(n)
            passes(event)

    received = []
    for chunk in flow.stream("talk"):
        received.append(chunk.value)
        if chunk.value is not None:
            go_on[chunk.value].set()  # the task goes on only once its chunk was received

    assert received == [0, 1, 2, None]


def test_many_followers_all_get_everything_in_order(flow: Flow):
    add_talk(flow, 2_000)
    began = threading.Barrier(5)
    run = flow.start("talk")

    def follow() -> list[StreamChunk]:
        began.wait(20)
        return list(run.stream())

    followers = [Helper(follow) for _ in range(4)]
    began.wait(20)

    for follower in followers:
        chunks = follower.result()
        assert values(chunks) == [*range(2_000), "output"]
        assert [chunk.seq for chunk in chunks] == list(range(1, 2_002))


def test_a_follower_that_comes_late_gets_the_history_and_then_what_is_live(flow: Flow):
    half, go_on = threading.Event(), threading.Event()

    @flow.task("talk")
    def talk(ctx: Context):
        for n in range(3_000):
            ctx.stream(n)
            if n == 1_500:
                half.set()
                passes(go_on)

    run = flow.start("talk")
    passes(half)
    stream = run.stream()
    first = values(itertools.islice(stream, 1_501))
    go_on.set()

    assert first == list(range(1_501))
    assert values(stream) == [*range(1_501, 3_000), None]


def test_the_final_view_gives_only_what_is_committed(flow: Flow):
    spoken, go_on = threading.Event(), threading.Event()
    flow.add_task("first", lambda ctx: ctx.stream("first") or TaskOutput("done", [NextTask("second")]))
    flow.add_task("second", lambda ctx: ctx.stream("second") or spoken.set() or passes(go_on))
    run = flow.start("first")
    passes(spoken)
    live, final = run.stream(view="live"), run.stream(view="final")

    assert values(itertools.islice(live, 3)) == ["first", "done", "second"]
    assert values(itertools.islice(final, 2)) == ["first", "done"]
    third = Helper(lambda: next(final).value)
    assert not third.is_done
    go_on.set()

    assert third.result() == "second"
    assert values(final) == [None]


def test_another_process_follows_a_live_run(flow: Flow, store: str):
    follow = """
    import sys
    from liteflow import Flow

    flow = Flow(store=sys.argv[1])
    for chunk in flow.get_run("r").stream(after=int(sys.argv[2]), view=sys.argv[3]):
        print(chunk.seq, chunk.task_id, chunk.value)
    print("end")
    """
    go_on = [threading.Event() for _ in range(3)]

    @flow.task("talk")
    def talk(ctx: Context):
        for n, event in enumerate(go_on):
            ctx.stream(n)
            passes(event)

    run = flow.start("talk", run_id="r")
    until(lambda: rows(store, "SELECT 1 FROM chunks"))
    child = Child(follow, store, 0, "live")
    for n, event in enumerate(go_on):
        assert child.line() == f"{n + 1} talk {n}"
        event.set()
    run.result(20)

    assert [child.line(), child.line()] == ["4 talk None", "end"]
    assert child.end() == 0
    assert output_of(follow, store, 2, "final") == ["3 talk 2", "4 talk None", "end"]


def test_an_unknown_view_is_refused(flow: Flow):
    add_talk(flow)
    run = flow.start("talk")
    run.result(20)

    with pytest.raises(LiteFlowError, match="view is 'all'"):
        run.stream(view="all")


# ---------------------------------------------------------------- attempts that came to nothing


def test_chunks_of_an_attempt_that_was_in_conflict_are_in_neither_view_afterwards(flow: Flow, store: str):
    together = threading.Barrier(2)
    flow.context.set("n", 0)
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("add", spawn_another=True) for _ in range(2)]))

    @flow.task("add")
    def add(ctx: Context):
        n = ctx.get("n")
        ctx.stream(f"saw {n}")
        if ctx.attempt == 1:
            together.wait(20)
        ctx.set("n", n + 1)
        return n

    run = flow.start("fan", context=flow.context)
    run.result(20)

    assert sorted(map(str, values(run.stream(view="final")))) == ["0", "1", "None", "saw 0", "saw 1"]
    assert values(run.stream(view="live")) == values(run.stream(view="final"))
    assert values(flow.get_run(run.id).stream()) == values(run.stream(view="final"))
    assert rows(store, "SELECT value FROM chunks WHERE status = 'lost'") == [('"saw 0"',)]


def test_a_live_follower_is_told_by_a_higher_attempt_that_the_earlier_chunks_are_withdrawn(flow: Flow):
    read, written = threading.Event(), threading.Event()
    flow.context.set("n", 1)

    @flow.task("double")
    def double(ctx: Context):
        n = ctx.get("n")
        ctx.stream(n)
        if ctx.attempt == 1:
            read.set()
            passes(written)
        ctx.set("n", 2 * n)

    run = flow.start("double", context=flow.context)
    stream = run.stream()
    seen = [next(stream)]
    flow.context.set("n", 10)
    written.set()
    seen += stream

    assert [(chunk.value, chunk.attempt) for chunk in seen] == [(1, 1), (10, 2), (None, 2)]
    assert [chunk.seq for chunk in seen] == [1, 2, 3]


KILLED = """
import sys, threading
from liteflow import Flow, NextTask, TaskOutput

flow = Flow(store=sys.argv[1])
flow.add_task("first", lambda ctx: (ctx.stream("first"), TaskOutput("done", [NextTask("second")]))[1])

@flow.task("second")
def second(ctx):
    for n in range(2500):
        ctx.stream(n)
    threading.Event().wait()

for chunk in flow.stream("first", run_id="r"):
    print(chunk.seq)
    if chunk.value == 2499:
        threading.Event().wait()
"""


def test_a_number_that_was_shown_is_never_used_again_after_a_crash(flow: Flow, store: str):
    child = Child(KILLED, store)
    shown = [int(child.line()) for _ in range(2_502)]
    child.kill()
    flow.add_task("second", lambda ctx: ctx.stream("again") or "output")

    run = flow.resume("r")
    run.result(20)

    assert shown == list(range(1, 2_503))
    for view in ("live", "final"):
        chunks = list(run.stream(view=view))
        assert values(chunks) == ["first", "done", "again", "output"]
        assert [chunk.seq for chunk in chunks[:2]] == shown[:2]
        assert all(chunk.seq > max(shown) for chunk in chunks[2:])
        assert [chunk.attempt for chunk in chunks] == [1, 1, 2, 2]


def test_a_follower_of_a_run_whose_process_was_killed_ends_there_and_can_go_on_after_the_resume(flow: Flow, store: str):
    child = Child(KILLED, store)
    shown = [int(child.line()) for _ in range(2_502)]
    until(lambda: rows(store, "SELECT count(*) FROM chunks WHERE status = 'open'")[0][0] == 2_500)
    child.kill()
    interrupted = [chunk.seq for chunk in flow.get_run("r").stream()]
    flow.add_task("second", lambda ctx: "output")
    flow.resume("r").result(20)

    assert interrupted == shown
    assert values(flow.get_run("r").stream(after=interrupted[-1])) == ["output"]


def test_a_failed_run_streams_on_after_its_resume(flow: Flow):
    broken = [True]

    @flow.task("talk")
    def talk(ctx: Context):
        ctx.stream("spoken")
        return 1 / 0 if broken else "output"

    received: list[StreamChunk] = []
    with pytest.raises(TaskFailedError) as failed:
        received.extend(flow.stream("talk"))
    broken.clear()
    run = flow.resume(failed.value.run_id)
    chunks = list(run.stream())

    assert values(chunks) == ["spoken", "output"]
    assert {chunk.attempt for chunk in chunks} == {2}
    assert min(chunk.seq for chunk in chunks) > max((chunk.seq for chunk in received), default=0)


def test_no_follower_sees_a_later_number_before_an_earlier_one_while_8_tasks_stream(flow: Flow, store: str):
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("talk", spawn_another=True) for _ in range(8)]))
    add_talk(flow, 200)
    run = flow.start("fan")
    elsewhere = Flow(store=store)
    afar = elsewhere.get_run(run.id)
    views = [run.stream(), run.stream(view="final"), afar.stream(), afar.stream(view="final")]

    for follower in [Helper(lambda stream=stream: [chunk.seq for chunk in stream]) for stream in views]:
        assert follower.result() == list(range(1, 8 * 201 + 2))
    elsewhere.close()


def test_leaving_a_stream_early_lets_the_run_go_on(flow: Flow):
    add_talk(flow, 10)
    stream = flow.stream("talk", run_id="r")
    next(stream)
    stream.close()

    assert flow.get_run("r").result(20) == {"talk": "output"}


def test_a_run_that_was_streamed_under_an_id_is_replayed_under_it(flow: Flow):
    add_talk(flow)
    first = list(flow.stream("talk", run_id="r"))

    assert list(flow.stream("talk", run_id="r")) == first
    assert len(flow.runs()) == 1
