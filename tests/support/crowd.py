"""Clients that ask a server at the same time, each one question after the other: ``python crowd.py DIRECTORY``."""

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit


async def ask(reader, writer, host, body):
    """One request over a connection that is kept: HTTP/1.1 as little as it takes, so that the clients cost little."""
    head = f"POST /v1/rewards HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    length = next(int(line.partition(":")[2]) for line in headers if line.lower().startswith("content-length:"))
    return int(status.split()[1]), await reader.readexactly(length)


async def client(url, bodies, numbers, begun, until, answers):
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**24)
    while time.perf_counter() < until:
        number = next(numbers) % len(bodies)
        answer = await ask(reader, writer, address.netloc, bodies[number])
        answers.append((number, *answer, time.perf_counter() - begun))
    writer.close()


async def main(directory):
    task = json.loads((directory / "task.json").read_text())
    bodies = [json.dumps({"questions": [row]}).encode() for row in task["rows"]]
    numbers, answers = itertools.count(), []
    begun = time.perf_counter()
    until = begun + task["seconds"]
    # An exception of a client, such as a connection that was closed, is an answer lost: it ends the program.
    await asyncio.gather(*(client(task["url"], bodies, numbers, begun, until, answers) for _ in range(task["clients"])))
    result = {
        "sent": next(numbers),
        "answers": [(number, status, json.loads(body), seconds) for number, status, body, seconds in answers],
    }
    (directory / "answers.json").write_text(json.dumps(result))


asyncio.run(main(Path(sys.argv[1])))
