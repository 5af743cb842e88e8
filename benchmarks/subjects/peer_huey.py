"""Huey on SQLite: each task enqueues the next; one worker. ``python peer_huey.py FOLDER SIZE normal|full|shipped``."""

import json
import logging
import sys
import threading
import time

from huey import Huey
from huey.storage import SqliteStorage

folder, size, synchronous = sys.argv[1], int(sys.argv[2]), sys.argv[3]
logging.disable(logging.ERROR)


class Storage(SqliteStorage):
    def _create_connection(self):
        connection = super()._create_connection()
        if synchronous != "shipped":
            connection.execute(f"PRAGMA synchronous = {synchronous.upper()}")
        return connection


huey = Huey("bench", storage_class=Storage, filename=f"{folder}/huey.db")
done = threading.Event()


@huey.task()
def link(n: int, last: int) -> int:
    if n < last:
        link(n + 1, last)
    else:
        done.set()
    return n


def chain(length: int) -> None:
    done.clear()
    link(1, length)
    assert done.wait(600)


consumer = huey.create_consumer(workers=1, initial_delay=0.001, max_delay=0.001, backoff=1, periodic=False)
consumer.start()
chain(10)
began = time.perf_counter()
chain(size)
print(json.dumps({"us": (time.perf_counter() - began) / size * 1e6}))
consumer.stop()
