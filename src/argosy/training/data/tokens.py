"""Documents to ids: a byte-level BPE, trained on them or given.

Encoding runs in the library's own threads. Each document is followed by the end token.
"""

import functools
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.training.data.manifest import DatasetError, sha256
from argosy.training.data.manifest import Tokenizer as Described
from argosy.training.data.recipe import Given
from argosy.training.data.shards import id_type

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
END_TOKEN = "<|endoftext|>"
_USUAL_ENDS = (END_TOKEN, "</s>", "<|end_of_text|>", "<eos>", "<|eot_id|>", "<|im_end|>")
_BATCH = 512
_MAPS_MAX = 256  # each holds a file descriptor


class TokenizerError(DatasetError):
    """A tokenizer cannot be used; the message says why."""


def trained(texts: Iterable[str], vocab: int) -> bytes:
    """A tokenizer.json: ids are the end token, 256 bytes, then merges, `vocab` in all.

    Text with fewer merges in it than asked for gives a smaller vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer.to_str().encode()


def given(source: Given) -> bytes:
    """The bytes of a tokenizer.json. Raises TokenizerError."""
    try:
        return Path(source.path).read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"tokenizer {source.path} cannot be read: {error.strerror}. Name a tokenizer.json, or "
            "let one be trained: tokenizer: {kind: train, vocab: 4096}"
        ) from error


def described(data: bytes, *, is_trained: bool, end_token: str | None = None) -> Described:
    """What the manifest says of it. Raises TokenizerError."""
    tokenizer = loaded(data)
    known = tokenizer.get_vocab(with_added_tokens=True)
    wanted = _USUAL_ENDS if end_token is None else (end_token,)
    end = next((name for name in wanted if name in known), None)
    if end is None:
        raise TokenizerError(
            f"the tokenizer has no token {' or '.join(wanted)} to stand after each document. Say "
            "which of its tokens does: tokenizer: {kind: file, path: …, end_token: …}"
        )
    return Described(
        file=TOKENIZER_FILE,
        sha256=sha256(data),
        vocab_size=max(known.values()) + 1,
        end_token=end,
        end_id=known[end],
        is_trained=is_trained,
    )


def loaded(data: bytes) -> "Tokenizer":
    """Raises TokenizerError where the bytes are none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"that is no tokenizer.json: {error}") from error


def encoded(texts: Sequence[str], tokenizer: "Tokenizer", about: Described) -> bytes:
    """The entry of a chunk: count, lengths, ids."""
    width = np.dtype(id_type(about.vocab_size)).newbyteorder("<")
    arrays: list[NDArray] = []
    for first in range(0, len(texts), _BATCH):
        some = tokenizer.encode_batch_fast(
            list(texts[first : first + _BATCH]), add_special_tokens=False
        )
        arrays += [np.array([*one.ids, about.end_id], dtype=width) for one in some]
    lengths = np.array([len(one) for one in arrays], dtype="<u8")
    count = np.array([len(arrays)], dtype="<u8")
    return b"".join([count.tobytes(), lengths.tobytes(), *(one.tobytes() for one in arrays)])


class Encoded(msgspec.Struct, frozen=True, kw_only=True):
    """The documents of a chunk as ids, in the cache."""

    path: Path
    vocab_size: int
    lengths: NDArray[np.uint64]

    def ids(self) -> NDArray[np.unsignedinteger]:
        """Of all its documents, one after the other; mapped."""
        return _mapped(self.path, self.vocab_size, len(self.lengths))


def load(path: Path, vocab_size: int) -> Encoded:
    """What `encoded` made."""
    with path.open("rb") as file:
        count = int(np.fromfile(file, dtype="<u8", count=1)[0])
        lengths = np.fromfile(file, dtype="<u8", count=count)
    return Encoded(path=path, vocab_size=vocab_size, lengths=lengths)


@functools.lru_cache(maxsize=_MAPS_MAX)
def _mapped(path: Path, vocab_size: int, count: int) -> NDArray[np.unsignedinteger]:
    width = np.dtype(id_type(vocab_size)).newbyteorder("<")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(data, dtype=width, offset=8 * (count + 1))


def sampled(texts: Iterator[str], bytes_max: int, bytes_all: int) -> Iterator[str]:
    """Evenly over all of them, about so many bytes."""
    share = min(1.0, bytes_max / max(1, bytes_all))
    owed = 0.0
    for text in texts:
        owed += share
        if owed >= 1:
            owed -= 1
            yield text
