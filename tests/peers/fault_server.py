"""A small HTTP/1.1 service that fails as told, and writes down every request that reached it.

    fault_server.py NAME ADDRESS PORT CONTROL JOURNAL

CONTROL is a Unix socket: `mode MODE`, one of MODES, is answered by `ok`; `idle SECONDS` closes connections after so
long without a request (0: never), and a busy server it is: for the last 10 ms it no longer reads what comes.
JOURNAL gets a line for each request as soon as its head is there, before anything is done about it: nanoseconds
since the epoch, method, target. It is appended to, and outlives the process.

Requests take 5 ms. Prints `listening` when it is ready; ends itself when its parent is gone.
"""

import asyncio
import os
import socket
import struct
import sys
import time

DELAY = 0.005
SLOW = 10 * DELAY
BUSY = 0.01

# `slow`: ten times as long. `unavailable`: 503, but for /healthz. `half_close`: half of the requests get an end
# of stream for an answer, half of them half a head and then that; new connections get it too. `reset`: a request is
# read and then reset.
MODES = ("good", "slow", "unavailable", "half_close", "reset")


class Service:
    def __init__(self, name, journal):
        self.name = name
        self.journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.mode = "good"
        self.idle = 0.0
        self.turn = 0

    def note(self, method, target):
        os.write(self.journal, f"{time.time_ns()} {method} {target}\n".encode())

    def command(self, line):
        word, value = line.split()
        if word == "mode" and value in MODES:
            self.mode = value
        elif word == "idle":
            self.idle = float(value)
        else:
            return "unknown"
        return "ok"


class Connection(asyncio.Protocol):
    def __init__(self, service):
        self.service = service
        self.buffer = b""
        self.body_left = 0
        self.timer = None

    def connection_made(self, transport):
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        if self.service.mode == "half_close" and self.turned():
            transport.write_eof()
        self.wait()

    def connection_lost(self, _cause):
        self.stop_waiting()

    def eof_received(self):
        return False

    def data_received(self, data):
        self.stop_waiting()
        if self.body_left:
            taken = min(self.body_left, len(data))
            self.body_left -= taken
            data = data[taken:]
        self.buffer += data
        while not self.body_left:
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self.buffer = rest
            self.head(head.decode("latin-1"))

    def head(self, head):
        lines = head.split("\r\n")
        method, target, _version = lines[0].split(" ")
        self.service.note(method, target)
        length = 0
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                length = int(value)
        taken = min(length, len(self.buffer))
        self.buffer = self.buffer[taken:]
        self.body_left = length - taken
        self.loop.call_later(SLOW if self.service.mode == "slow" else DELAY, self.answer, target)

    def answer(self, target):
        if self.transport.is_closing():
            return
        mode = self.service.mode
        if mode == "reset":
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        elif mode == "half_close":
            if self.turned():
                self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-le")
            self.transport.write_eof()
        else:
            down = mode == "unavailable" and target != "/healthz"
            status = "503 Service Unavailable" if down else "200 OK"
            body = f"{self.service.name}\n".encode()
            head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)
            self.wait()

    def turned(self):
        self.service.turn += 1
        return self.service.turn % 2 == 0

    def wait(self):
        if self.service.idle:
            self.timer = self.loop.call_later(self.service.idle - BUSY, self.end)

    def end(self):
        # With bytes unread the kernel sends a reset for an end: what a client meets that was a moment too late.
        self.transport.pause_reading()
        self.loop.call_later(BUSY, self.transport.close)

    def stop_waiting(self):
        if self.timer:
            self.timer.cancel()
            self.timer = None


async def control(service, path):
    async def talk(reader, writer):
        while line := await reader.readline():
            writer.write(service.command(line.decode()).encode() + b"\n")
            await writer.drain()
        writer.close()

    if os.path.exists(path):
        os.unlink(path)
    return await asyncio.start_unix_server(talk, path)


async def main():
    name, address, port, control_path, journal = sys.argv[1:]
    parent = os.getppid()
    service = Service(name, journal)
    loop = asyncio.get_running_loop()
    _control = await control(service, control_path)
    _server = await loop.create_server(lambda: Connection(service), address, int(port), backlog=1024)
    print("listening", flush=True)
    while os.getppid() == parent:
        await asyncio.sleep(1)


asyncio.run(main())
