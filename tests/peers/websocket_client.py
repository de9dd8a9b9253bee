"""Talks to the WebSocket echo at URL by `websockets`, and prints `fine` if all came back."""

import asyncio
import sys

from websockets.asyncio.client import connect


async def main():
    async with connect(sys.argv[1], subprotocols=["chat.v1"], max_size=None) as connection:
        assert connection.subprotocol == "chat.v1", connection.subprotocol
        for message in ["hello", b"\x00\x01\xff", "x" * 300_000, "ü" * 1000]:
            await connection.send(message)
            assert await connection.recv() == message
        pong = await connection.ping()
        await asyncio.wait_for(pong, 20)
    print("fine")


asyncio.run(main())
