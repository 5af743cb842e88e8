"""A stream: chunks are seen while the task still writes them, and recorded like all else.

The last chunk of a task is its output. Whoever comes later gets the same stream, replayed from the store.
`view="final"` gives committed chunks only: a task that was tried twice is in it once.
"""

from liteflow import Flow, StreamChunk

flow = Flow(name="poem")


@flow.task()
def write(ctx):
    stream = ctx.get_stream()
    for line in ("The rain has stopped.", "The gutter still", "tells it to the barrel."):
        stream.put(StreamChunk("write", line))
    return "three lines"


if __name__ == "__main__":
    for chunk in flow.stream("write"):
        print(f"{chunk.seq} {chunk.task_id}: {chunk.value}")
    print("again:", [chunk.value for chunk in flow.runs(limit=1)[0].stream(view="final")])
