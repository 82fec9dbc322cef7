"""Documents into blocks without a hole.

Pieces of a block's length are cut off long documents; what remains is placed by best fit, longest
first (each piece into the fullest block that still has room for it), so that few documents are cut
that need not be. The blocks that are left with room are then filled up with pieces of the emptiest
ones, cut to size: no token is padding, and of all text less than one block is left over.

Best fit by length: Ding et al. 2024, "Fewer truncations improve language modeling". One integer
with a bit for each room finds the fullest block: about 1 us a piece.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray


class Segments(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of a document in a block, block by block; arrays of one length."""

    document: NDArray[np.int64]
    offset: NDArray[np.int64]  # in the document
    length: NDArray[np.int64]
    block: NDArray[np.int64]  # never falls
    blocks: int
    fillings: int  # segments that were cut to fill a block
    tokens_dropped: int  # at the very end


Piece = tuple[int, int, int]  # document, offset, length


def packed(lengths: NDArray[np.int64], block_tokens: int) -> Segments:
    """All tokens of documents of those lengths, in blocks of `block_tokens`."""
    full, rests = _cut(lengths, block_tokens)
    bins, rooms = _best_fit(rests, block_tokens)
    filled, fillings, dropped = _fill(bins, rooms)
    pieces = [piece for one in filled for piece in one]
    counts = [1] * len(full) + [len(one) for one in filled]
    table = np.array([*full, *pieces], dtype=np.int64).reshape(-1, 3)
    return Segments(
        document=table[:, 0],
        offset=table[:, 1],
        length=table[:, 2],
        block=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        blocks=len(counts),
        fillings=fillings,
        tokens_dropped=dropped,
    )


def _cut(lengths: NDArray[np.int64], block_tokens: int) -> tuple[list[Piece], list[Piece]]:
    """Pieces that are a block, and the rest of each document, longest first."""
    full: list[Piece] = []
    rests: list[Piece] = []
    for document, length in enumerate(lengths.tolist()):
        whole = length - length % block_tokens
        full += [(document, offset, block_tokens) for offset in range(0, whole, block_tokens)]
        if length > whole:
            rests.append((document, whole, length - whole))
    rests.sort(key=lambda piece: (-piece[2], piece[0]))
    return full, rests


def _best_fit(rests: list[Piece], block_tokens: int) -> tuple[list[list[Piece]], list[int]]:
    """Pieces by block, and the room that each has left."""
    bins: list[list[Piece]] = []
    rooms: list[int] = []
    by_room: list[list[int]] = [[] for _ in range(block_tokens + 1)]
    has_room = 0  # bit r: some block has r tokens of room
    for piece in rests:
        length = piece[2]
        above = has_room >> length
        if above:
            room = length + (above & -above).bit_length() - 1
            place = by_room[room].pop()
            if not by_room[room]:
                has_room ^= 1 << room
            bins[place].append(piece)
        else:
            room, place = block_tokens, len(bins)
            bins.append([piece])
            rooms.append(0)
        left = room - length
        rooms[place] = left
        if left:
            by_room[left].append(place)
            has_room |= 1 << left
    return bins, rooms


def _fill(bins: list[list[Piece]], rooms: list[int]) -> tuple[list[list[Piece]], int, int]:
    """Every block full: the emptiest give their pieces to the others, cut where need be.

    Also how many cut pieces that took, and how many tokens were left over.
    """
    order = sorted(range(len(bins)), key=lambda place: (rooms[place], place))
    taken = [bins[place] for place in order if rooms[place] == 0]
    waiting = order[len(taken) :]
    spare: list[Piece] = []
    fillings = 0
    first, last = 0, len(waiting)
    while first < last:
        room = rooms[waiting[first]]
        while room:
            if not spare:
                last -= 1
                if last <= first:  # nobody is left to give: its own pieces are the tail
                    return taken, fillings, sum(piece[2] for piece in bins[waiting[first]])
                spare += bins[waiting[last]]
            document, offset, length = spare.pop()
            used = min(length, room)
            bins[waiting[first]].append((document, offset, used))
            fillings += 1
            room -= used
            if used < length:
                spare.append((document, offset + used, length - used))
        taken.append(bins[waiting[first]])
        first += 1
    return taken, fillings, sum(piece[2] for piece in spare)
