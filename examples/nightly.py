"""A nightly job: a task that does its work, and dispatches itself again with a `delay` until 02:00 of the next night, local time.

The wait is a row: no thread sleeps, the script may be closed or killed meanwhile, and `recover` takes the run up again.
Three nights pass in a second here, as time is turned by hand. In real life there is no `clock=` and no `skip`, `clock.now()` is
`datetime.now(UTC)`, and `run.wait()` is all that the script does.
"""

from datetime import UTC, datetime, time, timedelta

from liteflow import Flow, NextTask, TaskOutput
from liteflow.testing import FakeClock

clock = FakeClock(datetime(2026, 3, 27, 15, 0, tzinfo=UTC))


def until_two():
    """Return how long it is until the next 02:00, or 03:00 in the night in which summer time leaves that out."""
    now = clock.now().astimezone()  # local time
    night = datetime.combine(now.date() + timedelta(days=now.hour >= 2), time(2))
    return datetime.fromtimestamp(night.timestamp(), UTC) - now


def open_flow():
    flow = Flow(name="nightly", clock=clock)

    @flow.task()
    def plan(ctx):
        return TaskOutput("planned", [NextTask("clean_up", delay=until_two())])

    @flow.task()
    def clean_up(ctx):
        nights = ctx.update("nights", lambda nights: nights + 1, 0)
        print(f"{clock.now().astimezone():%d %B, %H:%M}  cleaning up, night {nights}")
        return TaskOutput(nights, [NextTask("clean_up", delay=until_two())] if nights < 3 else [])

    return flow


def skip(run):
    """Turn the clock to when the last task that was dispatched is due."""
    clock.advance(max(run.tasks()[-1].not_before - clock.now(), timedelta(0)))


if __name__ == "__main__":
    with open_flow() as flow:
        run = flow.start("plan")
        while run.status == "running":  # a moment, until it waits
            run.wait(0.01)
        print(run.reason)
    print("closed, and opened again")
    with open_flow() as flow:
        flow.recover()
        run = flow.get_run(run.id)
        for _ in run.stream(view="final"):  # the output of each task, once it is committed with what it dispatched
            skip(run)
        print(run.result())
