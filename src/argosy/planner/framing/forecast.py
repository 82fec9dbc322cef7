"""Recorded demand as the fleet file's `demand`: the typical day of each model, tier and origin.

What a plan wants of a recording are rates by the hour and lengths, not its requests: ServeGen's
week of billions is summed from its rates, other files are read through once. An hour's rate is a
high quantile over the days: a plan for the mean of them is too small every other day. Growth is
the plan table's, not the recording's.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.fleet.config import Fleet, Tier
from argosy.fleet.demand import HOURS, Demand, Lengths
from argosy.policies.admission.work import TIERS
from argosy.simulator.traces.files import TraceFile
from argosy.simulator.traces.lengths import P95_OVER_MEAN_MAX
from argosy.simulator.traces.opening import Kind, open_trace
from argosy.simulator.traces.servegen import STEP_S, served_of
from argosy.simulator.traces.window import UNNAMED, Trace, TraceError, Window

DAYS_SHARE = 0.9  # of days on which an hour asks for no more than what is planned
ROWS_KEPT = 50_000  # requests of each kind whose lengths are kept, at most
_HOUR_S = 3600.0
_PART_OF_HOUR_MIN = 0.25  # an hour that was recorded for less is not an hour
_P95_CUT = 0.99  # of what a lognormal can have


class _Kind(msgspec.Struct, frozen=True):
    model: str
    tier: Tier
    origin: str


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What a recording does not say, or calls otherwise than the fleet."""

    model: str | None = None  # for one that it does not name, or that the fleet does not have
    origin: str | None = None
    left_out: tuple[str, ...] = ()  # models of a ServeGen file that are not planned for


AS_IT_SAYS = Names()


def demand_of_file(
    source: str | Path | BinaryIO,
    fleet: Fleet,
    *,
    names: Names = AS_IT_SAYS,
    kind: Kind | None = None,
    days_share: float = DAYS_SHARE,
    seed: int = 0,
) -> tuple[Demand, ...]:
    """Of a file that `argosy simulate --trace` reads. Raises TraceError."""
    file = TraceFile(source)
    if kind == "servegen" or (kind is None and file.packing() == "parquet"):
        return _of_servegen(file, fleet, names=names, days_share=days_share, seed=seed)
    return demand_of_trace(
        open_trace(source, kind=kind, sort=True, zero_output_as_one=True),
        fleet,
        names=names,
        days_share=days_share,
    )


def demand_of_trace(
    trace: Trace,
    fleet: Fleet,
    *,
    names: Names = AS_IT_SAYS,
    days_share: float = DAYS_SHARE,
) -> tuple[Demand, ...]:
    """Of its requests, read through once. Second 0 is midnight UTC where the trace has no date."""
    models = [_model(name, fleet, names) for name in trace.models]
    origins = [_origin(name, fleet, names) for name in trace.origins]
    seen: dict[_Kind, _Seen] = {}
    first_s = trace.starts_at_s or 0.0
    last_s = first_s
    for window in trace.windows():
        last_s = first_s + float(window.arrival_s[-1])
        for kind, rows in _kinds_of(window, models, origins):
            seen.setdefault(kind, _Seen()).add(window, rows, first_s)
    hours = _recorded(first_s, last_s)
    return tuple(
        _demand(kind, counts.rates(hours), counts.lengths(), days_share)
        for kind, counts in sorted(seen.items(), key=lambda item: msgspec.structs.astuple(item[0]))
    )


def _of_servegen(
    file: TraceFile, fleet: Fleet, *, names: Names, days_share: float, seed: int
) -> tuple[Demand, ...]:
    origin = _origin(UNNAMED, fleet, names)
    steps_of_hour = int(_HOUR_S) // STEP_S
    found: list[Demand] = []
    for name, served in sorted(served_of(file, seed=seed).items()):
        if name in names.left_out:
            continue
        kind = _Kind(_model(name, fleet, names), "consumer", origin)
        whole = served.rates.size // steps_of_hour * steps_of_hour
        if not whole:
            raise TraceError(f"{file.name}: {name} was recorded for less than an hour")
        hourly = served.rates[:whole].reshape(-1, steps_of_hour).mean(axis=1)
        rates = {hour: float(rate) for hour, rate in enumerate(hourly)}
        lengths = served.prompt_tokens, served.output_tokens
        found.append(_demand(kind, rates, lengths, days_share))
    return tuple(found)


def _model(name: str, fleet: Fleet, names: Names) -> str:
    known = [model.name for model in fleet.models]
    if name in known:
        return name
    if names.model is not None and (name == UNNAMED or names.model in known):
        return names.model
    if name == UNNAMED and len(known) == 1:
        return known[0]
    asked = "does not say which model is asked" if name == UNNAMED else f"asks for {name}"
    raise TraceError(
        f"the recording {asked}; this fleet has {', '.join(known)}. Say which it is: --model NAME"
    )


def _origin(name: str, fleet: Fleet, names: Names) -> str:
    if name != UNNAMED:
        return name
    if names.origin is not None:
        return names.origin
    origins = {one.origin for one in fleet.demand} or {
        pool.region for pool in fleet.pools if pool.region is not None
    }
    if len(origins) == 1:
        return origins.pop()
    raise TraceError(
        "the recording does not say where requests come from. Say it: --origin CLOUD/REGION; this "
        f"fleet knows {', '.join(sorted(origins)) or 'none'}"
    )


def _kinds_of(
    window: Window, models: list[str], origins: list[str]
) -> Iterable[tuple[_Kind, NDArray[np.int64]]]:
    codes = np.stack([window.model, window.tier, window.origin]).astype(np.int64)
    kinds, which = np.unique(codes, axis=1, return_inverse=True)
    for place, (model, tier, origin) in enumerate(kinds.T.tolist()):
        rows = np.flatnonzero(which.ravel() == place)
        yield _Kind(models[model], TIERS[tier], origins[origin]), rows


class _Seen:
    """Requests of one kind: how many in each hour, and the lengths of some of them."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._prompts: list[NDArray[np.int32]] = []
        self._outputs: list[NDArray[np.int32]] = []
        self._kept, self._every = 0, 1

    def add(self, window: Window, rows: NDArray[np.int64], first_s: float) -> None:
        """These rows of a window; the trace's second 0 is `first_s` since midnight or 1970."""
        hours = ((window.arrival_s[rows] + first_s) // _HOUR_S).astype(np.int64)
        for hour, count in zip(*np.unique(hours, return_counts=True), strict=True):
            self._counts[int(hour)] = self._counts.get(int(hour), 0) + int(count)
        some = rows[:: self._every]
        self._prompts.append(window.prompt_tokens[some])
        self._outputs.append(window.output_tokens[some])
        self._kept += some.size
        if self._kept > ROWS_KEPT:
            self._prompts = [np.concatenate(self._prompts)[::2]]
            self._outputs = [np.concatenate(self._outputs)[::2]]
            self._kept, self._every = self._prompts[0].size, 2 * self._every

    def rates(self, hours: dict[int, float]) -> dict[int, float]:
        """Requests per second in each hour that was recorded, by the seconds that it was."""
        return {hour: self._counts.get(hour, 0) / seconds for hour, seconds in hours.items()}

    def lengths(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Prompts and answers of those kept."""
        return np.concatenate(self._prompts), np.concatenate(self._outputs)


def _recorded(first_s: float, last_s: float) -> dict[int, float]:
    """Hours since second 0, and how many seconds of each lie within the recording."""
    found: dict[int, float] = {}
    for hour in range(int(first_s // _HOUR_S), int(last_s // _HOUR_S) + 1):
        begin, end = hour * _HOUR_S, (hour + 1) * _HOUR_S
        found[hour] = max(1.0, min(end, last_s) - max(begin, first_s))
    enough = {hour: s for hour, s in found.items() if s >= _PART_OF_HOUR_MIN * _HOUR_S}
    return enough or found


def _demand(
    kind: _Kind,
    rates: dict[int, float],
    lengths: tuple[NDArray[np.int32], NDArray[np.int32]],
    days_share: float,
) -> Demand:
    """The typical day; an hour that was never recorded has the mean of those that were."""
    by_hour: list[list[float]] = [[] for _ in range(HOURS)]
    for hour, rate in rates.items():
        by_hour[hour % HOURS].append(rate)
    known = [
        float(np.quantile(some, days_share, method="higher")) if some else None for some in by_hour
    ]
    mean = float(np.mean([rate for rate in known if rate is not None]))
    day = [mean if rate is None else rate for rate in known]
    is_even = all(rate is None or rate == mean for rate in known) or mean == 0.0
    prompt, output = lengths
    return Demand(
        model=kind.model,
        origin=kind.origin,
        tier=kind.tier,
        requests_per_s=max(float(np.mean(day)), 1e-9),
        hourly=() if is_even else tuple(rate / float(np.mean(day)) for rate in day),
        prompt_tokens=_lengths(prompt),
        output_tokens=_lengths(output),
    )


def _lengths(tokens: NDArray[np.int32]) -> Lengths:
    """Mean and 95th percentile; of tails that no lognormal has, the mean is kept."""
    mean = float(np.mean(tokens))
    p95 = float(np.quantile(tokens, 0.95))
    return Lengths(mean=mean, p95=min(max(p95, mean), _P95_CUT * P95_OVER_MEAN_MAX * mean))
