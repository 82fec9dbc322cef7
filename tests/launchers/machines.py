"""Machines of a network of their own, as far as addresses go: namespaces behind a bridge (Linux).

Each has one address beside its own 127.0.0.1, which nobody else reaches; the bridge is this
machine's. What runs in them are processes of this machine. Needs root and iproute2.
"""

import itertools
import os
import shutil
import subprocess
import sys

_SERIALS = itertools.count(1)


def can_be_had() -> bool:
    """Whether they can be made here."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(("ip", "netns", "add", f"probe-{os.getpid()}"), capture_output=True)
    if made.returncode == 0:
        _ip("netns", "del", f"probe-{os.getpid()}")
    return made.returncode == 0


class Machines:
    """From the start until `close`. `address` is this machine's, where they reach it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        number = next(_SERIALS)
        self._tag = f"{os.getpid() % 100000:05d}{number % 10}"
        self._bridge = f"agb{self._tag}"
        self._subnet = f"10.{80 + number % 100}.{os.getpid() % 250}"
        self.address = f"{self._subnet}.1"
        self._numbers = {name: number for number, name in enumerate(names, 11)}
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for name in names:
                self._make(name)
        except BaseException:
            self.close()
            raise

    def address_of(self, name: str) -> str:
        """Where others reach it."""
        return f"{self._subnet}.{self._numbers[name]}"

    def on(self, name: str) -> tuple[str, ...]:
        """The words that run a command there."""
        return ("ip", "netns", "exec", self._space(name))

    def cut(self, name: str) -> None:
        """Nothing goes to it or comes from it, and nobody is told: as when it has lost power."""
        _ip("link", "set", self._link(name), "down")

    def join(self, name: str) -> None:
        """Again."""
        _ip("link", "set", self._link(name), "up")

    def close(self) -> None:
        """Leave nothing; processes there must have ended."""
        for name in self._numbers:
            _ip("netns", "del", self._space(name), check=False)
            _ip("link", "del", self._link(name), check=False)
        _ip("link", "del", self._bridge, check=False)

    def _make(self, name: str) -> None:
        space, link = self._space(name), self._link(name)
        _ip("netns", "add", space)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", link, "master", self._bridge, "up")
        _ip("-n", space, "addr", "add", f"{self.address_of(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")

    def _space(self, name: str) -> str:
        return f"ag{self._tag}-{name}"

    def _link(self, name: str) -> str:
        return f"agv{self._tag}{self._numbers[name]}"


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(("ip", *words), check=check, capture_output=True)
