"""State: a context is a durable map, filled before the run and read after it.

`from_dict` and `to_dict` move whole dictionaries; a value that was read is a copy, and changes nothing until it is set.
Each write is a version: the history says who wrote it, and `at` shows the context as it stood.
"""

from liteflow import Context, Flow

context = Context()
context.from_dict({"stock": {"apples": 3}})
flow = Flow(name="shop", context=context)


@flow.task()
def sell(ctx):
    return ctx.update("stock", lambda stock: stock | {"apples": stock["apples"] - 1})


if __name__ == "__main__":
    flow.run("sell")
    flow.run("sell")
    print(flow.get_context().to_dict())
    versions = flow.context.history("stock")
    print([(version.value["apples"], version.task_key) for version in versions])
    print(flow.context.at(versions[0].version).get("stock"))
