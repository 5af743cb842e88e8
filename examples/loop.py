"""A loop: a task that dispatches itself until it has had enough.

Each turn is a transaction of its own: a run that is killed in turn 3 resumes with turn 3.
The same way a graph may branch, come together and turn back; there is nothing to declare beforehand.
"""

from liteflow import Flow, NextTask, TaskOutput

flow = Flow(name="collatz")


@flow.task()
def step(ctx):
    number = ctx.get("number")
    ctx.set("path", [*ctx.get("path", []), number])
    if number == 1:
        return TaskOutput(ctx.get("path"))
    ctx.set("number", number // 2 if number % 2 == 0 else 3 * number + 1)
    return TaskOutput(number, [NextTask("step")])


if __name__ == "__main__":
    print(flow.run("step", inputs={"number": 6}))
