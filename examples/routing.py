"""Routing: the next task is chosen while the flow runs, by what came in.

Only the chosen branch is dispatched, and only it is in the result.
An id that the flow does not have fails the task that named it, with the nearest id in the message.
"""

from liteflow import Context, Flow, NextTask, TaskOutput

flow = Flow(name="post office")
HEAVIEST_LETTER = 500  # grams


@flow.task()
def sort(ctx):
    counter = "letters" if ctx.get("grams") <= HEAVIEST_LETTER else "parcels"
    return TaskOutput(f"to {counter}", [NextTask(counter)])


flow.add_task("letters", lambda ctx: f"stamped, {ctx.get('grams')} g")
flow.add_task("parcels", lambda ctx: f"labelled, {ctx.get('grams')} g")

if __name__ == "__main__":
    for grams in (20, 3000):
        print(flow.run("sort", inputs={"grams": grams}, context=Context()))  # a context of its own for each
