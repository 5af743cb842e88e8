"""LangGraph with its SQLite checkpointer: a node that leads to itself. ``python peer_langgraph.py FOLDER SIZE normal|full``."""

import json
import sqlite3
import sys
import time
from typing import TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

folder, size, synchronous = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class State(TypedDict):
    n: int
    last: int


graph = StateGraph(State)
graph.add_node("link", lambda state: {"n": state["n"] + 1})
graph.add_edge(START, "link")
graph.add_conditional_edges("link", lambda state: END if state["n"] >= state["last"] else "link")
connection = sqlite3.connect(f"{folder}/langgraph.db", check_same_thread=False)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute(f"PRAGMA synchronous = {synchronous.upper()}")
app = graph.compile(checkpointer=SqliteSaver(connection))


def chain(thread: str, length: int) -> None:
    config = {"configurable": {"thread_id": thread}, "recursion_limit": length + 10}
    assert app.invoke({"n": 0, "last": length}, config, durability="sync")["n"] == length


chain("warm", 10)
began = time.perf_counter()
chain("1", size)
print(json.dumps({"us": (time.perf_counter() - began) / size * 1e6}))
