"""What a type checker must refuse: each line carries the complaint it must get, and not to get it is an error."""

from __future__ import annotations

from liteflow import Context, Flow, NextTask, TaskOutput

flow = Flow()
context = Context()

Flow(durability="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # there are two
flow.run(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an id is a string
flow.run("greet", ["not", "a", "mapping"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # keys are set
flow.get_run("monday").stream(view="both")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # one of two
context.set(1, "value")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a key is a string
NextTask("plain", None, True, 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # options go by name
TaskOutput(None, NextTask("plain"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a list of them
NextTask("plain", wait_for=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a list of keys
context.step("pay", len, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what len takes
flow.task(timeout="long")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # seconds or a timedelta
TaskOutput("x").output = "y"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # frozen
