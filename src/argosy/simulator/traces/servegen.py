"""ServeGen: what each client of a large service asked for, 10 minutes at a time, made requests.

The data are rates, and how gaps were distributed around them, of each client; and quantiles of
token counts of the busiest. Requests are drawn from them: no single request was published. Each
client is a renewal process (Gamma or Weibull gaps) that goes on from step to step at the step's
rate and shape; a client without token counts has those of one that has, drawn by the seed.
Prompt and answer are drawn independently: the data do not tie them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from argosy.simulator.traces.arrivals import first_gap
from argosy.simulator.traces.chance import generator, key
from argosy.simulator.traces.files import TraceFile
from argosy.simulator.traces.interleave import interleaved
from argosy.simulator.traces.transforms import NAMES_MAX
from argosy.simulator.traces.window import (
    WINDOW_ROWS,
    Trace,
    TraceError,
    Window,
    in_order,
    joined,
    window_of,
)

if TYPE_CHECKING:
    import pyarrow

STEP_S = 600  # of the rates
QUANTILES = ("0.01", "0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95", "0.99", "0.999")
_LEVELS = np.array([float(level) for level in QUANTILES])
_PROMPT_PARTS = ("text", "image", "audio", "video")  # of a prompt whose whole was not published
_RATE_COLUMNS = ("model", "client", "t_s", "rate_rps", "iat_family", "p1")
_PARTS_OF_STEP = (1, 2, 3, 4, 5, 6, 10, 12, 20, 30, 60, 120, 200, 300, 600)
WEIBULL_SHAPE_MIN = 0.02  # its mean gap is Gamma(1 + 1/shape): 3e64 at 0.02, the data have 0.15


@dataclass(frozen=True, kw_only=True)
class _Rates:
    """One client's steps: the k-th begins at `starts_s[k]`."""

    starts_s: list[int]
    rates: list[float]  # requests per second
    are_weibull: list[bool]
    shapes: list[float]


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """One client's token counts over time."""

    starts_s: NDArray[np.int64]  # from when each holds
    prompts: list[list[NDArray[np.float64]]]  # quantiles of each part of a prompt
    outputs: list[NDArray[np.float64]]


_Tables = Mapping[str, Mapping[int, _Tokens]]


def read_servegen(
    rates: TraceFile,
    *,
    seed: int,
    tokens: TraceFile | None = None,
    models: Sequence[str] | None = None,
) -> Trace:
    """Requests of these models (None: all) at the recorded rates, one tenant for each client.

    `tokens` None: the file beside `rates` with client_token_quantiles for client_rates in its name.
    """
    tokens = tokens or _beside(rates)
    clients = _rates_of(_table(rates, _RATE_COLUMNS), rates.name)
    tables = _tokens_of(_table(tokens, ("model", "client", "window_s")), tokens.name)
    names = tuple(models or clients)
    for model in names:
        if model not in clients or model not in tables:
            lacking = rates.name if model not in clients else tokens.name
            both = ", ".join(sorted(clients.keys() & tables.keys()))
            raise TraceError(f'{lacking} has no model "{model}"; both files have: {both or "none"}')
    tenants = [f"{model}/{client}" for model in names for client in clients[model]]
    if len(tenants) > NAMES_MAX:
        raise TraceError(f"{rates.name}: {len(tenants)} clients; {NAMES_MAX} is the most")

    def pieces() -> Iterator[Window]:
        streams: list[Iterator[Window]] = []
        tenant = 0
        for place, model in enumerate(names):
            made = [
                _Client(steps, _some(tables[model], client, seed), seed, (tenant + index, place))
                for index, (client, steps) in enumerate(clients[model].items())
            ]
            tenant += len(made)
            streams.append(_requests(made))
        return interleaved(streams)

    return Trace(
        pieces=pieces,
        found=f"{rates.name}: ServeGen, {len(tenants)} clients of {', '.join(names)} (seed {seed})",
        models=names,
        tenants=tuple(tenants),
    )


@dataclass(frozen=True, kw_only=True)
class Served:
    """One model's demand in sums: a week has billions of requests, and these are enough to plan.

    The first three have one value for each step of STEP_S from 0 on, of all clients together.
    """

    rates: NDArray[np.float64]  # requests per second
    prompts_per_s: NDArray[np.float64]  # tokens of prompts, expected
    outputs_per_s: NDArray[np.float64]  # tokens of answers, expected
    begin_s: NDArray[np.int64]  # of some requests, from each client by its share: their step
    prompt_tokens: NDArray[np.int32]  # of the same
    output_tokens: NDArray[np.int32]


def served_of(
    rates: TraceFile, *, seed: int, tokens: TraceFile | None = None, rows: int = 20_000
) -> dict[str, Served]:
    """By model; `rows` requests, about, are drawn of each for their lengths."""
    tokens = tokens or _beside(rates)
    clients = _rates_of(_table(rates, _RATE_COLUMNS), rates.name)
    tables = _tokens_of(_table(tokens, ("model", "client", "window_s")), tokens.name)
    return {
        model: _served(of, tables[model], seed, rows)
        for model, of in clients.items()
        if model in tables
    }


def _served(
    clients: Mapping[int, _Rates], tables: Mapping[int, _Tokens], seed: int, rows: int
) -> Served:
    last = max(steps.starts_s[-1] for steps in clients.values())
    rates, prompts, outputs = np.zeros((3, last // STEP_S + 1))
    for client, steps in clients.items():
        at, each = np.array(steps.starts_s) // STEP_S, np.array(steps.rates)
        prompt, output = _means(_some(tables, client, seed), np.array(steps.starts_s))
        rates[at] += each
        prompts[at] += each * prompt
        outputs[at] += each * output
    each_row = rows / rates.sum()
    begins: list[NDArray[np.int64]] = []
    drawn: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    for index, (client, steps) in enumerate(clients.items()):
        one = _Client(steps, _some(tables, client, seed), seed, (index, 0))
        left = 0.5  # of a request: whole ones are drawn
        for start_s, rate in zip(steps.starts_s, steps.rates, strict=True):
            left += each_row * rate
            if left >= 1.0:
                begins.append(np.full(int(left), start_s))
                drawn.append(one.tokens_at(start_s, int(left)))
                left -= int(left)
    prompt_tokens, output_tokens = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return Served(
        rates=rates,
        prompts_per_s=prompts,
        outputs_per_s=outputs,
        begin_s=np.concatenate(begins),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
    )


def _means(
    tokens: _Tokens, times_s: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tokens of a prompt and of an answer, on average, at these times."""
    place = np.maximum(0, tokens.starts_s.searchsorted(times_s, "right") - 1)
    prompts = np.array([sum(_mean(part) for part in parts) for parts in tokens.prompts])
    outputs = np.array([_mean(quantiles) for quantiles in tokens.outputs])
    return prompts[place], outputs[place]


def _mean(quantiles: NDArray[np.float64]) -> float:
    """Of what `tokens_at` draws: straight lines between the quantiles, level beyond them."""
    levels = np.concatenate([[0.0], _LEVELS, [1.0]])
    values = np.concatenate([quantiles[:1], quantiles, quantiles[-1:]])
    return float(np.sum(np.diff(levels) * (values[1:] + values[:-1]) / 2))


def _requests(clients: Sequence["_Client"]) -> Iterator[Window]:
    """One model's requests, by arrival, in slices of a step that a window holds on average."""
    expected: dict[int, float] = {}
    for client in clients:
        for start_s, rate in zip(client.steps.starts_s, client.steps.rates, strict=True):
            expected[start_s] = expected.get(start_s, 0.0) + rate * STEP_S
    parts = next((p for p in _PARTS_OF_STEP if max(expected.values()) / p <= WINDOW_ROWS), STEP_S)
    slice_s = STEP_S / parts
    for start_s in sorted(expected):
        active = [client for client in clients if client.begin(start_s)]
        for index in range(parts):
            made = [client.requests(start_s + index * slice_s, slice_s) for client in active]
            filled = [window for window in made if window is not None]
            if filled:
                yield in_order(joined(filled))


class _Client:
    """One client's requests; remembers how far off, in requests expected, the next one is."""

    def __init__(self, steps: _Rates, tokens: _Tokens, seed: int, codes: tuple[int, int]) -> None:
        self.steps = steps
        self._tokens = tokens
        self._tenant, self._model = codes
        self._gaps, self._lengths = (generator(seed, codes[0], use) for use in range(2))
        self._step_of = {start_s: index for index, start_s in enumerate(steps.starts_s)}
        self._step = 0
        self._left = _first(self._gaps, steps)

    def begin(self, start_s: int) -> bool:
        """Go on with the step that begins then; False: nothing is asked in it."""
        self._step = self._step_of.get(start_s, -1)
        return self._step >= 0

    def requests(self, start_s: float, slice_s: float) -> Window | None:
        rate = self.steps.rates[self._step]
        expected = rate * slice_s
        if self._left >= expected:
            self._left -= expected
            return None
        parts = [np.array([self._left])]
        while parts[-1][-1] < expected:
            gaps = self._drawn(int((expected - parts[-1][-1]) * 1.1) + 16)
            parts.append(parts[-1][-1] + np.cumsum(gaps))
        counts = np.concatenate(parts)
        rows = int(counts.searchsorted(expected))
        self._left = float(counts[rows]) - expected
        prompt, output = self.tokens_at(start_s, rows)
        columns: dict[str, object] = {
            # Rounding must not carry the last into the next slice, whose first may be earlier.
            "arrival_s": np.minimum(start_s + counts[:rows] / rate, start_s + slice_s),
            "prompt_tokens": prompt,
            "output_tokens": output,
            "tenant": self._tenant,
            "model": self._model,
        }
        return window_of(columns, rows=rows)

    def _drawn(self, count: int) -> NDArray[np.float64]:
        """Gaps with a mean of 1."""
        shape = self.steps.shapes[self._step]
        if self.steps.are_weibull[self._step]:
            return self._gaps.weibull(shape, count) / math.gamma(1.0 + 1.0 / shape)
        return self._gaps.standard_gamma(shape, count) / shape

    def tokens_at(self, time_s: float, count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Prompt and answer of so many of its requests, as they are at that time."""
        place = max(0, int(self._tokens.starts_s.searchsorted(time_s, "right")) - 1)
        prompt = np.zeros(count)
        for quantiles in self._tokens.prompts[place]:
            prompt += np.interp(self._lengths.random(count), _LEVELS, quantiles)
        output = np.interp(self._lengths.random(count), _LEVELS, self._tokens.outputs[place])
        return _whole(prompt), _whole(output)


def _whole(tokens: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.maximum(np.rint(tokens), 1.0).astype(np.int32)


def _first(chance: np.random.Generator, steps: _Rates) -> float:
    """To a client's first request, for one that has long been asking."""
    shape = steps.shapes[0]
    if not steps.are_weibull[0]:
        return first_gap(chance, 1.0 / math.sqrt(shape))
    # The gap that one falls into, for Weibull gaps: a Gamma(1 + 1/k) to the power of 1/k.
    gap = chance.standard_gamma(1.0 + 1.0 / shape) ** (1.0 / shape)
    return float(chance.random() * gap / math.gamma(1.0 + 1.0 / shape))


def _some(tables: Mapping[int, _Tokens], client: int, seed: int) -> _Tokens:
    """The client's own token counts, or those of another one."""
    own = tables.get(client)
    if own is not None:
        return own
    return tables[sorted(tables)[key(seed, "tokens", client) % len(tables)]]


def _beside(rates: TraceFile) -> TraceFile:
    if rates.path is None or "client_rates" not in rates.path.name:
        raise TraceError(
            f"{rates.name}: token lengths are in another file of ServeGen; give it as tokens="
        )
    name = rates.path.name.replace("client_rates", "client_token_quantiles")
    return TraceFile(rates.path.with_name(name))


def _table(file: TraceFile, needed: Sequence[str]) -> "pyarrow.Table":
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise TraceError(
            "a ServeGen trace needs the package pyarrow: pip install 'argosy[simulate]'"
        ) from error
    try:
        with file.opened() as raw:
            table = parquet.read_table(raw)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise TraceError(f"{file.name}: no parquet file that can be read ({error})") from error
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise TraceError(f"{file.name}: columns {', '.join(missing)} are missing; it has no rates")
    if not table.num_rows:
        raise TraceError(f"{file.name}: there is no row in it")
    for name in needed:
        if table[name].null_count:
            raise TraceError(f"{file.name}: {table[name].null_count} rows have no {name}")
    return table


def _rates_of(table: "pyarrow.Table", file: str) -> dict[str, dict[int, _Rates]]:
    """Each client's steps, by model and client in order."""
    columns = {name: np.array(table[name].to_pylist()) for name in _RATE_COLUMNS}
    _check_rates(columns, file)
    order = np.lexsort((columns["t_s"], columns["client"], columns["model"]))
    columns = {name: column[order] for name, column in columns.items()}
    model, client, t_s = columns["model"], columns["client"], columns["t_s"]
    is_same = (model[1:] == model[:-1]) & (client[1:] == client[:-1])
    twice = np.flatnonzero(is_same & (t_s[1:] == t_s[:-1]))
    if twice.size:
        at = twice[0]
        raise TraceError(
            f"{file}: {model[at]}, client {client[at]}, t_s {t_s[at]} is there twice; once would do"
        )
    found: dict[str, dict[int, _Rates]] = {}
    bounds = [0, *(np.flatnonzero(~is_same) + 1).tolist(), model.size]
    for start, stop in pairwise(bounds):
        found.setdefault(str(model[start]), {})[int(client[start])] = _Rates(
            starts_s=t_s[start:stop].tolist(),
            rates=columns["rate_rps"][start:stop].tolist(),
            are_weibull=(columns["iat_family"][start:stop] == "Weibull").tolist(),
            shapes=columns["p1"][start:stop].tolist(),
        )
    return found


def _check_rates(columns: Mapping[str, NDArray[Any]], file: str) -> None:
    rate, shape, start_s = columns["rate_rps"], columns["p1"], columns["t_s"]
    is_weibull = columns["iat_family"] == "Weibull"
    usable = np.isfinite(rate) & (rate > 0) & np.isfinite(shape) & (shape > 0)
    usable &= (start_s >= 0) & (start_s % STEP_S == 0)
    usable &= (is_weibull & (shape >= WEIBULL_SHAPE_MIN)) | (columns["iat_family"] == "Gamma")
    if not usable.all():
        row = int((~usable).argmax())
        said = ", ".join(f"{name} {column[row]}" for name, column in columns.items())
        raise TraceError(
            f"{file}: row {row} says {said}; a rate and a shape p1 above 0 (Weibull: from "
            f"{WEIBULL_SHAPE_MIN}), Gamma or Weibull, and a t_s of whole {STEP_S} s would do"
        )


def _tokens_of(table: "pyarrow.Table", file: str) -> dict[str, dict[int, _Tokens]]:
    rows: dict[tuple[str, int], list[Mapping[str, float | None]]] = {}
    for row in table.to_pylist():
        rows.setdefault((row["model"], row["client"]), []).append(row)
    found: dict[str, dict[int, _Tokens]] = {}
    for (model, client), windows in sorted(rows.items()):
        windows.sort(key=lambda row: row["window_s"] or 0.0)
        where = f"{file}: {model}, client {client}"
        found.setdefault(model, {})[client] = _Tokens(
            starts_s=np.array([row["window_s"] for row in windows], np.int64),
            prompts=[_prompt_parts(row, where) for row in windows],
            outputs=[_quantiles(row, "output_tokens", where) for row in windows],
        )
    return found


def _prompt_parts(row: Mapping[str, float | None], where: str) -> list[NDArray[np.float64]]:
    """The whole prompt's quantiles, or those of the parts that add up to it."""
    if row.get("input_tokens_q0.5") is not None:
        return [_quantiles(row, "input_tokens", where)]
    parts = [f"{part}_tokens" for part in _PROMPT_PARTS]
    known = [part for part in parts if row.get(f"{part}_q0.5") is not None]
    if not known:
        raise TraceError(f"{where}: no quantiles of input_tokens, nor of its parts")
    return [_quantiles(row, part, where) for part in known]


def _quantiles(row: Mapping[str, float | None], name: str, where: str) -> NDArray[np.float64]:
    values = np.array([row.get(f"{name}_q{level}") for level in QUANTILES], np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or (np.diff(values) < 0).any():
        raise TraceError(
            f"{where}, window {row['window_s']}: quantiles of {name} are {values.tolist()}; "
            "numbers >= 0 that do not fall would do"
        )
    return values
