"""What must agree after a flow in which each execution draws a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.crash.harness import Told

EXECUTIONS = {"nonces": 8, "nonces of one worker": 7}  # of tasks, in a run that was not killed


def disagreements(shape: str, calm: Told, resumed: Told) -> list[str]:
    """Return where context, output, stream and what was sent do not come from the same executions."""
    end = resumed.ends.get(shape, {"error": "it did not end"})
    if "error" in end:
        return [end["error"]]
    found, context = _of_instances(end), end["context"]
    effects = {key: end["histories"].get(key, []) for key in _keys(context)}
    outputs = [output["nonce"] for key in effects for output in effects[key]]
    drawn = sorted(int(key.removeprefix("drawn ")) for key in context if key.startswith("drawn "))
    if drawn != sorted(outputs):
        found.append(f"drawn {drawn}, put out {sorted(outputs)}")
    if len(outputs) != EXECUTIONS[shape]:
        found.append(f"{len(outputs)} executions took effect instead of {EXECUTIONS[shape]}")
    for output in (output for key in effects for output in effects[key]):
        if output["read"] is not None and output["read"] not in outputs:
            found.append(f"{output} has read what nobody put out")
        sender = output["from"]
        if "by" in sender and sender["nonce"] not in [by["nonce"] for by in effects.get(sender["by"], [])]:
            found.append(f"{output} was dispatched by an execution that did not take effect")
    result = {key: context.get(key) for key in end["result"]}
    if result != end["result"]:
        found.append(f"result {end['result']} for outputs {result}")
    return found


def _keys(context: dict[str, Any]) -> list[str]:
    """Return the keys of the instances."""
    return [key.removeprefix("nonce of ") for key in context if key.startswith("nonce of ")]


def _of_instances(end: dict[str, Any]) -> list[str]:
    """Compare the values that each execution has left: one after the other, as an instance may take several turns."""
    found, histories = [], end["histories"]
    for key in _keys(end["context"]):
        written = histories[f"nonce of {key}"]
        put_out = [output["nonce"] for output in histories.get(key, [])]
        counts = histories.get(f"count of {key}", [])
        right = [[nonce] * (nonce % 4 + 1) for nonce in written]
        stream = [value for _, value in end["stream"].get(key, [])]
        said = [value["nonce"] if isinstance(value, dict) else value for value in stream]
        if written != put_out:
            found.append(f"{key}: context {written}, output {put_out}")
        if counts != [len(chunks) for chunks in right]:
            found.append(f"{key}: counts {counts} for {written}")
        if said != [value for chunks in right for value in [*chunks, chunks[0]]]:
            found.append(f"{key}: stream {said} for {written}")
    return found
