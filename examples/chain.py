"""A chain: each task names the next, and hands it inputs.

`context.get("bake")` reads what the task `bake` gave; had it not ended yet, the get would wait for it.
Inputs in a NextTask go to that one dispatch; `run(inputs=...)` also sets keys of the context.
"""

from liteflow import Flow, NextTask, TaskOutput

flow = Flow(name="bakery")


@flow.task()
def bake(ctx):
    loaves = [f"loaf {number}" for number in range(1, ctx.get("loaves") + 1)]
    return TaskOutput(loaves, [NextTask("deliver", inputs={"to": "the corner shop"})])


@flow.task()
def deliver(ctx, inputs):
    return f"{len(ctx.get('bake'))} loaves to {inputs['to']}"


if __name__ == "__main__":
    print(flow.run("bake", inputs={"loaves": 12}))
