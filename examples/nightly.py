"""A nightly job: a task that does its work, and dispatches itself again with a `delay` until the next night.

The wait is a row: no thread sleeps, the script may be closed or killed meanwhile, and `recover` takes the run up again.
Time is turned by hand here, so that three nights pass in a second; leave out `clock=`, and they take three nights.
"""

from datetime import UTC, datetime, timedelta

from liteflow import Flow, NextTask, TaskOutput
from liteflow.testing import FakeClock

clock = FakeClock(datetime(2026, 3, 27, 15, 0, tzinfo=UTC))


def until_two(now):
    """Return how long it is until 02:00."""
    tonight = now.replace(hour=2, minute=0, second=0, microsecond=0)
    return (tonight if tonight > now else tonight + timedelta(days=1)) - now


def open_flow():
    flow = Flow(name="nightly", clock=clock)

    @flow.task()
    def plan(ctx):
        return TaskOutput("planned", [NextTask("clean_up", delay=until_two(clock.now()))])

    @flow.task()
    def clean_up(ctx):
        nights = ctx.update("nights", lambda nights: nights + 1, 0)
        print(f"{clock.now():%d %B, %H:%M}  cleaning up, night {nights}")
        return TaskOutput(nights, [NextTask("clean_up", delay=until_two(clock.now()))] if nights < 3 else [])

    return flow


if __name__ == "__main__":
    with open_flow() as flow:
        run = flow.start("plan")
        while run.status == "running":  # a moment, until it waits
            run.wait(0.01)
        print(run.reason)
    with open_flow() as flow:  # the script was closed, and is started again
        flow.recover()
        run = flow.get_run(run.id)
        while not run.status.is_final:
            clock.advance(timedelta(hours=1))
            run.wait(0.02)
        print(run.result())
