"""Map-reduce on one key: many instances of a task add to one list, and none overwrites another's item.

`spawn_another=True` starts one more instance of a task; without it, a dispatch merges into the one that has not started.
An instance that read the list and was overtaken runs again on the fresh one, so the reducer sees every item.
"""

from liteflow import Flow, NextTask, TaskOutput

flow = Flow(name="squares")


@flow.task("start")
def start(ctx):
    ctx.set("squares", [])
    return TaskOutput(None, [NextTask("square", inputs=number, spawn_another=True) for number in range(10)])


@flow.task("square")
def square(ctx, inputs):
    squares = ctx.get("squares")
    squares.append(inputs * inputs)
    ctx.set("squares", squares)
    return TaskOutput(inputs, [NextTask("sum")])


@flow.task("sum")
def add_up(ctx):
    return sum(ctx.get("squares"))


if __name__ == "__main__":
    print(flow.run("start")["sum"])
