"""An async crawler of a small site, which this script serves itself: pages wait for the network side by side, on no thread.

A page that loses the race for `seen` runs again on the fresh list, so that no page is dispatched twice; what it has fetched is a
step, so that it is fetched once. `agather` waits for all pages, also for those that are dispatched meanwhile.
"""

import asyncio
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from liteflow import Flow, NextTask, PoolExecutor, RetryPolicy, TaskOutput

flow = Flow(PoolExecutor(max_workers=2), name="crawler")
requests = Counter()


class Site(BaseHTTPRequestHandler):
    """Thirty pages; 7 links to one that is not there, 4 is slow, and the first request for 5 breaks off."""

    def do_GET(self):
        requests[self.path] += 1
        number = int(self.path[1:])
        if requests["/5"] == 1 and number == 5:
            return
        if number == 4:
            time.sleep(0.3)
        links = [n for n in (2 * number + 1, 2 * number + 2, number // 2) if n < 30] + [404] * (number == 7)
        self.send_response(200 if number < 30 else 404)
        self.end_headers()
        self.wfile.write("".join(f'<a href="/{link}">' for link in links).encode())

    def log_message(self, *_):
        pass


site = ThreadingHTTPServer(("127.0.0.1", 0), Site)


async def fetch(path):
    reader, writer = await asyncio.open_connection(*site.server_address)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    if not answer:
        raise ConnectionError(f"{path} broke off")
    return int(answer.split()[1]), re.findall(r'href="(.*?)"', answer)


@flow.task("start")
def start(ctx):
    ctx.set("seen", ["/0"])
    return TaskOutput(None, [NextTask("page", "/0", spawn_another=True), NextTask("report")])


@flow.task("page", retry=RetryPolicy(max_attempts=3, initial_interval=0.01), timeout=10)
async def page(ctx, inputs):
    status, links = await ctx.astep("fetch", fetch, inputs)
    seen = await ctx.aget("seen")
    new = [link for link in dict.fromkeys(links) if link not in seen]
    if new:
        ctx.set("seen", seen + new)
    ctx.set(f"found at {inputs}", {"status": status, "links": len(links)})
    return TaskOutput(f"{status} {inputs}", [NextTask("page", link, spawn_another=True) for link in new])


@flow.task("report")
async def report(ctx):
    await ctx.agather("page")
    found = {path: await ctx.aget(f"found at {path}") for path in sorted(await ctx.aget("seen"))}
    links = sum(page["links"] for page in found.values())
    return {"pages": len(found), "links": links, "broken": [path for path, page in found.items() if page["status"] != 200]}


async def crawl():
    async for chunk in flow.astream("start"):
        print(chunk.task_id, chunk.value)


if __name__ == "__main__":
    threading.Thread(target=site.serve_forever, daemon=True).start()
    asyncio.run(crawl())
    site.shutdown()
    site.server_close()
    again = {path: times for path, times in requests.items() if times > 1}
    print(f"{sum(requests.values())} requests; asked for more than once: {again}")
