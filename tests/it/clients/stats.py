"""Watches statistics over a WebSocket, again and again, and prints what comes as lines of JSON.

Usage: python stats.py URL
"""

import asyncio
import json
import sys

import websockets

SUBSCRIPTION = json.dumps({"series": ["backend/default"], "every": "1s"})


def show(line):
    print(json.dumps(line), flush=True)


async def watch(url):
    # The library connects again by itself, with pauses of its own.
    async for socket in websockets.connect(url):
        try:
            pong = await socket.ping()
            await asyncio.wait_for(pong, 20)
            show({"type": "open"})
            # A message in three fragments, one of them empty.
            await socket.send([SUBSCRIPTION[:9], "", SUBSCRIPTION[9:]])
            async for frame in socket:
                show(json.loads(frame))
        except websockets.ConnectionClosed:
            pass
        show({"type": "closed", "code": socket.close_code})


asyncio.run(watch(sys.argv[1]))
