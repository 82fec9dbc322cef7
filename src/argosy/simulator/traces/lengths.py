"""How long prompts and answers are: drawn from a lognormal, or from pairs that were recorded."""

import math
from statistics import NormalDist
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from argosy.simulator.traces.window import Trace, TraceError

Z_95 = NormalDist().inv_cdf(0.95)  # 1.6449 standard deviations
P95_OVER_MEAN_MAX = math.exp(Z_95 * Z_95 / 2)  # 3.87: no lognormal has more
_Tokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Lognormal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tokens by their mean and 95th percentile, rounded, at least 1; longer ones are cut."""

    tokens_mean: Annotated[float, Meta(ge=1.0)]
    tokens_p95: Annotated[float, Meta(ge=1.0)]
    tokens_max: _Tokens = 131_072


class Lognormals(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="from",
    tag="lognormal",
    forbid_unknown_fields=True,
):
    """Prompts and answers, drawn independently."""

    prompt: Lognormal
    output: Lognormal


class LengthTable(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="from",
    tag="table",
    forbid_unknown_fields=True,
):
    """Recorded requests to draw from, so that prompts keep the answers that they had."""

    prompt_tokens: Annotated[tuple[_Tokens, ...], Meta(min_length=1)]
    output_tokens: Annotated[tuple[_Tokens, ...], Meta(min_length=1)]  # of the same requests

    def __post_init__(self) -> None:
        if len(self.prompt_tokens) != len(self.output_tokens):
            raise TraceError(
                f"a table of {len(self.prompt_tokens)} prompts and {len(self.output_tokens)} "
                "answers; each request has one of both"
            )


Lengths = Lognormals | LengthTable


def length_table(trace: Trace, *, rows_max: int = 100_000) -> LengthTable:
    """The lengths of a trace's requests; of a longer trace, of its first `rows_max`."""
    prompts: list[int] = []
    outputs: list[int] = []
    for window in trace.windows():
        prompts.extend(window.prompt_tokens[: rows_max - len(prompts)].tolist())
        outputs.extend(window.output_tokens[: rows_max - len(outputs)].tolist())
        if len(prompts) >= rows_max:
            break
    return LengthTable(prompt_tokens=tuple(prompts), output_tokens=tuple(outputs))


class Sampler:
    """Draws (prompt tokens, output tokens) of many requests at once."""

    def __init__(self, lengths: Lengths) -> None:
        self._table: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None
        self._laws: list[tuple[float, float, int]] = []
        if isinstance(lengths, LengthTable):
            prompts = np.array(lengths.prompt_tokens, np.int32)
            self._table = prompts, np.array(lengths.output_tokens, np.int32)
        else:
            self._laws = [_law(lengths.prompt), _law(lengths.output)]

    def draw(
        self, chance: np.random.Generator, count: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Prompt and output tokens of `count` requests."""
        if self._table is not None:
            index = chance.integers(self._table[0].size, size=count)
            return self._table[0][index], self._table[1][index]
        prompt, output = (_drawn(chance, law, count) for law in self._laws)
        return prompt, output


def _law(wanted: Lognormal) -> tuple[float, float, int]:
    """Mean and deviation of the logarithm, and the cut.

    mean = exp(m + s^2/2) and p95 = exp(m + z s) give s = z - sqrt(z^2 - 2 ln(p95 / mean)).
    """
    ratio = wanted.tokens_p95 / wanted.tokens_mean
    if not 1.0 <= ratio <= P95_OVER_MEAN_MAX:
        raise TraceError(
            f"no lognormal has a mean of {wanted.tokens_mean:g} and a 95th percentile of "
            f"{wanted.tokens_p95:g} tokens: that is 1 to {P95_OVER_MEAN_MAX:.2f} times the mean. "
            "Give one in that range, or lengths from a table"
        )
    deviation = Z_95 - math.sqrt(max(0.0, Z_95 * Z_95 - 2 * math.log(ratio)))
    return math.log(wanted.tokens_mean) - deviation**2 / 2, deviation, wanted.tokens_max


def _drawn(
    chance: np.random.Generator, law: tuple[float, float, int], count: int
) -> NDArray[np.int32]:
    mean, deviation, most = law
    drawn = chance.standard_normal(count)
    drawn *= deviation
    drawn += mean
    np.exp(drawn, out=drawn)
    np.rint(drawn, out=drawn)
    np.clip(drawn, 1, most, out=drawn)
    return drawn.astype(np.int32)
