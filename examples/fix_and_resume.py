"""Fix and resume: a task fails, the code is mended, and `resume` runs only the rest.

What had completed is kept: the expensive download runs once, however often the parser is mended.
Errors name the task, the run, and the line that resumes it; the traceback is in the store.
"""

from liteflow import Flow, NextTask, TaskFailedError, TaskOutput

flow = Flow(name="report")


@flow.task()
def download(ctx):
    print("downloading (this takes an hour)")
    return TaskOutput("3,14", [NextTask("parse")])


@flow.task()
def parse(ctx):
    return float(ctx.get("download"))


def parse_mended(ctx):
    return float(ctx.get("download").replace(",", "."))


if __name__ == "__main__":
    run = flow.start("download")
    try:
        run.result()
    except TaskFailedError as error:
        print(f"{error.key}: {error.cause_type}")
    flow.add_task("parse", parse_mended)  # in real life: edit the file, start again
    print(flow.resume(run.id).result())
    print([(task.key, str(task.status), task.attempts) for task in run.tasks()])
