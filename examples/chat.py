"""A chat whose state lives in a named context: stop the script, start it again, and it remembers.

`Context("chat-ada")` opens what the store holds under that name; each message is a run of its own in it.
Type a line and see the answer; an empty line ends it. Without a terminal, lines are read from standard input.
"""

import sys

from liteflow import Context, Flow

flow = Flow(name="chat", context=Context("chat-ada"))


@flow.task()
def answer(ctx):
    said = ctx.get("said", [])
    message = ctx.get("message")
    reply = f"You said {message!r}; it was your message number {len(said) + 1}."
    if said:
        reply += f" The one before was {said[-1]!r}."
    for word in reply.split():
        ctx.stream(word)
    ctx.set("said", [*said, message])
    return reply


def main():
    for line in sys.stdin:
        if not line.strip():
            break
        words = [str(c.value) for c in flow.stream("answer", inputs={"message": line.strip()})]
        print(" ".join(words[:-1]))  # the last chunk is the output itself


if __name__ == "__main__":
    main()
