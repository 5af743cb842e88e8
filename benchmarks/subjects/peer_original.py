"""liteflow 0.2.0, which keeps nothing: one task after the other, in memory. ``python peer_original.py FOLDER SIZE``."""

import contextlib
import json
import sys
import time
import types

size = int(sys.argv[2])


class Laminar:
    """Stands in for its telemetry, whose own dependencies no longer install."""

    start_as_current_span = staticmethod(lambda *_, **__: contextlib.nullcontext())
    set_span_output = staticmethod(lambda *_: None)


lmnr = types.ModuleType("lmnr")
lmnr.Laminar, lmnr.observe = Laminar, lambda **_: lambda fn: fn
sys.modules["lmnr"] = lmnr

from concurrent.futures import ThreadPoolExecutor  # noqa: E402 - after its telemetry is replaced

from liteflow.executor import PoolExecutor  # noqa: E402 - as above
from liteflow.flow import Flow, NextTask, TaskOutput  # noqa: E402 - as above

flow = Flow(PoolExecutor(ThreadPoolExecutor(max_workers=4)))


def link(context):
    n = context.get("n") + 1
    context.set("n", n)
    return TaskOutput(n, [NextTask("link")] if n < context.get("last") else [])


flow.add_task("link", link)
flow.run("link", inputs={"n": 0, "last": 10})
began = time.perf_counter()
flow.run("link", inputs={"n": 0, "last": size})
print(json.dumps({"us": (time.perf_counter() - began) / size * 1e6}))
