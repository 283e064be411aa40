"""procrastinate: an async task that asks the upstream over one shared aiohttp client and keeps the answer in a table.

`worker N`: its worker with N jobs at once, on uvloop. `send`: for each number N on a line of the input, N jobs.
"""

import asyncio
import json
import os
import sys

import aiohttp
import procrastinate
import uvloop

from bench.tasks import sender

CONNECTIONS = 20
SENDERS = 64  # coroutines that defer side by side

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=os.environ["BENCH_DATABASE_URL"], min_size=1, max_size=CONNECTIONS
    ),
    # By name, because this file is run as a module.
    import_paths=[],
)
session = None


@app.task(name="complete")
async def complete(body):
    async with session.post(f"{os.environ['BENCH_UPSTREAM']}/chat/completions", json=body) as response:
        response.raise_for_status()
        answer = await response.json()
    if os.environ["BENCH_KEEP_ANSWERS"] == "1":
        await app.connector.execute_query_async(
            "INSERT INTO bench_answer (body) VALUES (%(body)s)", body=json.dumps(answer)
        )


async def send(count, body):
    left = iter(range(count))

    async def defer():
        for _ in left:
            await complete.defer_async(body=body)

    await asyncio.gather(*(defer() for _ in range(SENDERS)))


async def work(concurrency):
    global session
    async with app.open_async(), aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await app.run_worker_async(concurrency=concurrency)


async def send_on_demand():
    async with app.open_async():
        await sender.obey_async(send)


if __name__ == "__main__":
    uvloop.run(work(int(sys.argv[2])) if sys.argv[1] == "worker" else send_on_demand())
