"""A network of 100 Mbit/s on this machine: namespaces whose links the kernel shapes (Linux, root).

Each place is a network namespace on a bridge. tc's token bucket filter (tbf) is at both ends of
each link, so that what a place sends and what it receives is at most 100 Mbit/s each. Packets are
as long as on a wire: a link hands over no larger ones to be cut later. No delay is added.
"""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.launchers.machines import Machines, can_be_had

MBIT_PER_S = 100
SHAPE = f"rate {MBIT_PER_S}mbit burst 32kb latency 50ms"
TOLD = f"network namespaces on a bridge, tc tbf {SHAPE} at both ends of each link, GSO off"
_PROBE_BYTES = 25_000_000
_PROBE = """\
import socket, sys, threading, time
mine, other, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
listener = socket.create_server((mine, 5201))
print("up", flush=True)
sys.stdin.readline()
sender = socket.create_connection((other, 5201))
receiver, _ = listener.accept()
def send():
    block = bytes(65536)
    for _ in range(size // len(block)):
        sender.sendall(block)
    sender.shutdown(socket.SHUT_WR)
thread = threading.Thread(target=send)
thread.start()
count, began = len(receiver.recv(65536)), time.perf_counter()
while part := receiver.recv(65536):
    count += len(part)
print(8e-6 * count / (time.perf_counter() - began), flush=True)
thread.join()
"""


@contextmanager
def shaped(names: tuple[str, ...]) -> Iterator[Machines]:
    """Places of those names until the end of it. Exits where they cannot be made."""
    if not can_be_had() or shutil.which("tc") is None:
        sys.exit("network namespaces and tc are needed: run it as root on Linux, with iproute2")
    machines = Machines(names)
    try:
        for name in names:
            _run(*machines.on(name), "ip", "link", "set", "eth0", "gso_max_segs", "1")
            _run(*machines.on(name), "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *_words())
            link = link_of(machines, name)
            _run("ip", "link", "set", link, "gso_max_segs", "1")
            _run("tc", "qdisc", "add", "dev", link, "root", "tbf", *_words())
        yield machines
    finally:
        machines.close()


def link_of(machines: Machines, name: str) -> str:
    """Of a place, this machine's end."""
    words = (*machines.on(name), "ip", "-o", "link", "show", "eth0")
    shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    index = shown.partition("@if")[2].partition(":")[0]
    for path in Path("/sys/class/net").iterdir():
        if (path / "ifindex").read_text().strip() == index:
            return path.name
    raise LookupError(f"no link {index} here for {name}: {shown}")


class Counters:
    """Bytes over the links of some places since it was made, Ethernet's headers included."""

    def __init__(self, machines: Machines, names: tuple[str, ...]) -> None:
        self._links = {name: link_of(machines, name) for name in names}
        self._before = self._now()

    def since(self) -> dict[str, dict[str, int]]:
        """By place: up, what it sent, and down."""
        return {
            name: {way: count - self._before[name][way] for way, count in ways.items()}
            for name, ways in self._now().items()
        }

    def _now(self) -> dict[str, dict[str, int]]:
        return {
            name: {"up": _count(link, "rx_bytes"), "down": _count(link, "tx_bytes")}
            for name, link in self._links.items()
        }


def measured_mbit_per_s(machines: Machines, one: str, other: str) -> dict[str, float]:
    """What TCP's payload makes between two places, both ways at once: by who receives."""
    pairs = ((one, other), (other, one))
    probes = [
        subprocess.Popen(
            [*machines.on(name), sys.executable, "-c", _PROBE, *_addressed(machines, name, peer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, peer in pairs
    ]
    killer = threading.Timer(60, lambda: [probe.kill() for probe in probes])
    killer.start()
    try:
        for probe in probes:
            assert probe.stdout is not None
            probe.stdout.readline()
        told: dict[str, float] = {}
        for probe in probes:
            assert probe.stdin is not None
            probe.stdin.write("\n")
            probe.stdin.flush()
        for (name, _), probe in zip(pairs, probes, strict=True):
            told[name] = round(float(probe.communicate()[0]), 1)
        return told
    finally:
        killer.cancel()
        for probe in probes:
            probe.kill()


def _addressed(machines: Machines, name: str, peer: str) -> list[str]:
    return [machines.address_of(name), machines.address_of(peer), str(_PROBE_BYTES)]


def _words() -> list[str]:
    return SHAPE.split()


def _count(link: str, what: str) -> int:
    return int(Path(f"/sys/class/net/{link}/statistics/{what}").read_text())


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
