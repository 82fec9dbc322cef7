"""What `argosy up` and its gateway processes tell each other, and the socket pair that carries it.

A message is its length in 4 bytes and then MessagePack: counters are keyed by tuples, which JSON
cannot. Owns the words and their order on the wire; what is done upon them is `gateways.py`'s (the
parent) and `gateway_process.py`'s (a child).
"""

import asyncio
import contextlib
import socket
from typing import Generic, TypeAlias, TypeVar

import msgspec

from argosy.fleet.config import Fleet
from argosy.fleet.messages import Key, LiveKeys, ReplicaTable
from argosy.gateway.together import Collected, GatewaySnapshot
from argosy.observability.counts import MetricsSnapshot

_LENGTH_BYTES = 4
M = TypeVar("M")


class Word(msgspec.Struct, frozen=True, tag=True):
    """The base of all messages."""


class Begin(Word, frozen=True, kw_only=True, tag=True):
    """The first: all that a gateway process is built from."""

    fleet: Fleet  # the whole; its share is taken by the child
    state: str  # the folder
    store: str | None = None  # a shared one's URL; None: the folder's own
    process: int  # its number, from 0
    column: int  # of the ledger; no two alive have the same
    columns: int
    operator_token: str
    up_key: Key
    table: ReplicaTable
    keys: LiveKeys | None = None  # that a control plane told; None: none ever did


class Serve(Word, frozen=True, tag=True):
    """Listen: all that were started together are ready."""


class Table(Word, frozen=True, kw_only=True, tag=True):
    """Route on this from now on."""

    table: ReplicaTable


class Keys(Word, frozen=True, kw_only=True, tag=True):
    """A control plane told these."""

    keys: LiveKeys


class Report(Word, frozen=True, kw_only=True, tag=True):
    """Tell what you have; answered by `Reported` with the same number."""

    number: int
    explain: str | None = None  # a request


class Count(Word, frozen=True, kw_only=True, tag=True):
    """Tell only what you count, which is quick; answered by `Counted` with the same number."""

    number: int


class Answered(Word, frozen=True, kw_only=True, tag=True):
    """What all told that were asked because of `Collecting` of that number."""

    number: int
    collected: Collected


class Retire(Word, frozen=True, kw_only=True, tag=True):
    """A successor listens: take no more connections, end what is open, then yourself."""

    timeout_s: float


class Drain(Word, frozen=True, kw_only=True, tag=True):
    """The fleet stops: refuse what comes, end what runs, then yourself. May come again, sooner."""

    timeout_s: float


class Ready(Word, frozen=True, tag=True):
    """Built, and able to listen."""


class Serving(Word, frozen=True, tag=True):
    """Listens."""


class Reported(Word, frozen=True, kw_only=True, tag=True):
    """The answer to `Report`."""

    number: int
    snapshot: GatewaySnapshot


class Counted(Word, frozen=True, kw_only=True, tag=True):
    """The answer to `Count`."""

    number: int
    metrics: MetricsSnapshot


class Collecting(Word, frozen=True, kw_only=True, tag=True):
    """A client wants a page of all processes; answered by `Answered` with the same number."""

    number: int
    explain: str | None = None


class Farewell(Word, frozen=True, kw_only=True, tag=True):
    """The last: what it counted, before it exits."""

    snapshot: GatewaySnapshot


ToChild: TypeAlias = Begin | Serve | Table | Keys | Report | Count | Answered | Retire | Drain
ToParent: TypeAlias = Ready | Serving | Reported | Counted | Collecting | Farewell


class Channel(Generic[M]):
    """One end of the pair. `M` is what comes in."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: "msgspec.msgpack.Decoder[M]",
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()

    @classmethod
    async def open(cls, end: socket.socket, decoder: "msgspec.msgpack.Decoder[M]") -> "Channel[M]":
        """Takes the socket over."""
        reader, writer = await asyncio.open_unix_connection(sock=end)
        writer.transport.set_write_buffer_limits(high=0)  # so that `flush` waits for the last byte
        return cls(reader, writer, decoder)

    def send(self, word: Word) -> None:
        """Never waits; to an end that is gone it says nothing."""
        if self._writer.is_closing():
            return
        data = self._encoder.encode(word)
        self._writer.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    async def flush(self) -> None:
        """Returns when all that was sent is on its way, or the other end is gone."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def receive(self) -> M | None:
        """The next message; None when the other end is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            return self._decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            return None

    def close(self) -> None:
        """The other end reads the end of it."""
        self._writer.close()


def child_decoder() -> "msgspec.msgpack.Decoder[ToChild]":
    """Of what a child is told."""
    return msgspec.msgpack.Decoder(ToChild)


def parent_decoder() -> "msgspec.msgpack.Decoder[ToParent]":
    """Of what a parent is told."""
    return msgspec.msgpack.Decoder(ToParent)
