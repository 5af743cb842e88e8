"""The smallest flow: one task, one result.

A task is a function of its context; what it returns is recorded, and is the result of the run.
Run it twice: each run has an id, and stays in the store, `liteflow.db` or what LITEFLOW_STORE names.
"""

from liteflow import Context, Flow, TaskOutput

flow = Flow(name="greeting")


@flow.task("hello")
def hello(context: Context) -> TaskOutput:
    return TaskOutput(output=f"Hello {context.get('name')}!")


if __name__ == "__main__":
    print(flow.run("hello", inputs={"name": "Ada"}))
    print(f"{len(flow.runs())} runs so far")
