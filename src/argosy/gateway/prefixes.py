"""Which replica has read which beginning of a prompt: hashes of raw bytes, in bounded memory.

No tokenizer and no word from the engine: a replica that has read a prompt is taken to have it in
its prefix cache until so many bytes came after it as the cache holds. This may be wrong either
way; a wrong guess costs a prefill, never an answer.

Bytes are hashed in blocks, 128 B long up to 4 KiB, then 512 B up to 8 KiB, then 2 KiB up to 64 KiB,
then 8 KiB up to 1 MiB; what comes after is not looked at. The first ones are short because chats
that share a system prompt differ by their first questions, a hundred bytes or two each. A prompt of
100 KB is so 72 blocks to look up, not 782. Each hash continues the one before
(it is the next one's seed), so equal hashes mean equal beginnings, under the same salt.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

from xxhash import xxh3_64_intdigest

ENTRIES_MAX = 65_536  # (block, replica) pairs of an index: about 15 MB
BYTES_MAX = 2**20  # of a prompt that are looked at
BLOCK_BYTES = 128  # of the first ones; a shorter prompt has none
_ENDS = (
    *range(0, 4_096, BLOCK_BYTES),
    *range(4_096, 8_192, 512),
    *range(8_192, 65_536, 2_048),
    *range(65_536, BYTES_MAX + 1, 8_192),
)
_SPANS = tuple(pairwise(_ENDS))
_NOBODY: Mapping[str, int] = MappingProxyType({})


def salt_of(*parts: bytes) -> int:
    """A seed for `block_hashes`: what else must be equal for a cache to serve (tools, template)."""
    salt = 0
    for part in parts:
        salt = xxh3_64_intdigest(part, salt)
    return salt


def block_hashes(prompt: bytes, salt: int = 0, *, begin: int = 0) -> list[int]:
    """One hash for each whole block, of everything up to its end; none under 128 bytes.

    `begin` is where requests of one chat begin to be the same: at the messages, not before fields
    that a client may write in another order.
    """
    hashes: list[int] = []
    length, chain = len(prompt) - begin, salt
    for start, end in _SPANS:
        if end > length:
            break
        chain = xxh3_64_intdigest(prompt[begin + start : begin + end], chain)
        hashes.append(chain)
    return hashes


class _Held:
    """The blocks that one replica is taken to hold, the least recently sent first."""

    __slots__ = ("bit", "bytes", "bytes_max", "sizes")

    def __init__(self, bit: int, bytes_max: int) -> None:
        self.bit = bit
        self.bytes_max = bytes_max
        self.sizes: OrderedDict[int, int] = OrderedDict()
        self.bytes = 0


class PrefixIndex:
    """Who has read what, of one model.

    Two bounds: each replica's blocks have at most its capacity in bytes, and all replicas
    together at most `entries_max` blocks, an equal share each. What was sent to a replica longest
    ago goes first, a prompt's end before its beginning.
    """

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._share = entries_max
        self._masks: dict[int, int] = {}  # block to the bits of those that hold it
        self._held: dict[str, _Held] = {}
        self._names: dict[int, str] = {}  # by bit

    def __len__(self) -> int:
        """Entries: (block, replica) pairs."""
        return sum(len(held.sizes) for held in self._held.values())

    @property
    def blocks(self) -> int:
        """Different blocks, whoever holds them."""
        return len(self._masks)

    def join(self, replica: str, *, capacity_bytes: int) -> None:
        """A replica whose cache holds that many prompt bytes; one that is known keeps its blocks.

        Where it is unknown: its context in tokens x slots x 4 bytes.
        """
        held = self._held.get(replica)
        if held is not None:
            held.bytes_max = capacity_bytes
            self._trim(held)
            return
        bit = next(
            1 << place for place in range(len(self._held) + 1) if 1 << place not in self._names
        )
        self._held[replica] = _Held(bit, capacity_bytes)
        self._names[bit] = replica
        self._share = self._entries_max // len(self._held)
        for other in self._held.values():
            self._trim(other)

    def forget(self, replica: str) -> None:
        """It was restarted or left: its cache is empty. Nothing, where it is not known."""
        held = self._held.pop(replica, None)
        if held is None:
            return
        del self._names[held.bit]
        for block in held.sizes:
            self._clear(block, held.bit)
        self._share = self._entries_max // max(1, len(self._held))

    def longest(self, hashes: Sequence[int]) -> Mapping[str, int]:
        """How many bytes of a prompt each replica holds; those with none are left out."""
        masks = self._masks
        mask = masks.get(hashes[0], 0) if hashes else 0
        if not mask:
            return _NOBODY
        found: dict[str, int] = {}
        place = 0
        for place, block in enumerate(hashes):
            both = mask & masks.get(block, 0)
            if both != mask:
                self._name(mask & ~both, _ENDS[place], found)
                mask = both
                if not mask:
                    return found
        self._name(mask, _ENDS[place + 1], found)
        return found

    def insert(self, hashes: Sequence[int], replica: str) -> None:
        """The replica was sent this prompt. Nothing, where it has not joined."""
        held = self._held.get(replica)
        if held is None:
            return
        bit, sizes, masks = held.bit, held.sizes, self._masks
        for place in range(len(hashes) - 1, -1, -1):  # the beginning last: it is to stay longest
            block = hashes[place]
            if block in sizes:
                sizes.move_to_end(block)
                continue
            size = _ENDS[place + 1] - _ENDS[place]
            sizes[block] = size
            held.bytes += size
            masks[block] = masks.get(block, 0) | bit
        if held.bytes > held.bytes_max or len(sizes) > self._share:
            self._trim(held)

    def _name(self, mask: int, end: int, found: dict[str, int]) -> None:
        while mask:
            bit = mask & -mask
            found[self._names[bit]] = end
            mask ^= bit

    def _trim(self, held: _Held) -> None:
        """Let go of what was sent longest ago until both bounds hold."""
        sizes = held.sizes
        while sizes and (held.bytes > held.bytes_max or len(sizes) > self._share):
            block, size = sizes.popitem(last=False)
            held.bytes -= size
            self._clear(block, held.bit)

    def _clear(self, block: int, bit: int) -> None:
        rest = self._masks[block] & ~bit
        if rest:
            self._masks[block] = rest
        else:
            del self._masks[block]
