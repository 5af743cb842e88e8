"""DBOS on SQLite: a workflow of one step after the other. ``python peer_dbos.py FOLDER SIZE normal|full|shipped``."""

import json
import sys
import time

from sqlalchemy import Engine, event

folder, size, synchronous = sys.argv[1], int(sys.argv[2]), sys.argv[3]


@event.listens_for(Engine, "connect")
def tune(connection, _record):
    if synchronous != "shipped":
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous.upper()}")


from dbos import DBOS  # noqa: E402 - after the listener, so that it sees each of its connections

DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{folder}/dbos.sqlite", "log_level": "ERROR"})


@DBOS.step()
def link(n: int) -> int:
    return n + 1


@DBOS.workflow()
def chain(length: int) -> int:
    n = 0
    for _ in range(length):
        n = link(n)
    return n


DBOS.launch()
chain(10)
began = time.perf_counter()
assert chain(size) == size
seconds = time.perf_counter() - began
DBOS.destroy()
print(json.dumps({"us": seconds / size * 1e6}))
