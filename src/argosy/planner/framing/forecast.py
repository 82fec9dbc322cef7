"""Recorded demand as the fleet file's `demand`: the typical day of each model, tier and origin.

What a plan wants of a recording are rates by the hour and lengths, not its requests: ServeGen's
week of billions is summed from its rates, other files are read through once. What a typical day is,
`typical.py` says. Growth is the plan table's, not the recording's.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.fleet.config import Fleet, Tier
from argosy.fleet.demand import Demand
from argosy.planner.framing.typical import HOUR_S, Course, Sample, typical_day
from argosy.policies.admission.work import TIERS
from argosy.simulator.traces.files import TraceFile
from argosy.simulator.traces.opening import Kind, open_trace
from argosy.simulator.traces.servegen import STEP_S, Served, served_of
from argosy.simulator.traces.window import UNNAMED, Trace, TraceError, Window

SHARE = 0.99  # of the minutes of an hour, over all days, that ask for no more than is planned
ROWS_KEPT = 50_000  # requests of each kind whose lengths are kept, at most
_MINUTE_S = 60.0
_PART_OF_HOUR_MIN = 0.25  # an hour that was recorded for less is not an hour
_PART_OF_MINUTE_MIN = 0.5


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
    share: float = SHARE,
    seed: int = 0,
) -> tuple[Demand, ...]:
    """Of a file that `argosy simulate --trace` reads. Raises TraceError.

    One entry for each model, tier and origin, or up to three where lengths differ by the hour.
    """
    file = TraceFile(source)
    if kind == "servegen" or (kind is None and file.packing() == "parquet"):
        return _of_servegen(file, fleet, names=names, share=share, seed=seed)
    return demand_of_trace(
        open_trace(source, kind=kind, sort=True, zero_output_as_one=True),
        fleet,
        names=names,
        share=share,
    )


def demand_of_trace(
    trace: Trace,
    fleet: Fleet,
    *,
    names: Names = AS_IT_SAYS,
    share: float = SHARE,
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
    minutes = _recorded(first_s, last_s)
    return tuple(
        one
        for kind, of in sorted(seen.items(), key=lambda item: msgspec.structs.astuple(item[0]))
        for one in _demands(kind, of.course(*minutes), of.sample(), share)
    )


def _of_servegen(
    file: TraceFile, fleet: Fleet, *, names: Names, share: float, seed: int
) -> tuple[Demand, ...]:
    origin = _origin(UNNAMED, fleet, names)
    found: list[Demand] = []
    for name, served in sorted(served_of(file, seed=seed).items()):
        if name in names.left_out:
            continue
        kind = _Kind(_model(name, fleet, names), "consumer", origin)
        whole = served.rates.size * STEP_S // int(HOUR_S) * int(HOUR_S) // STEP_S
        if not whole:
            raise TraceError(f"{file.name}: {name} was recorded for less than an hour")
        hour = served.begin_s // int(HOUR_S)
        sample = Sample(hour, served.prompt_tokens, served.output_tokens)
        found += _demands(kind, _course(served, whole), sample, share)
    return tuple(found)


def _course(served: Served, steps: int) -> Course:
    """Of the first so many; expected rates have no chance in them."""
    return Course(
        hour=np.arange(steps) * STEP_S // int(HOUR_S),
        seconds=np.full(steps, float(STEP_S)),
        requests=served.rates[:steps] * STEP_S,
        prompt_tokens=served.prompts_per_s[:steps] * STEP_S,
        output_tokens=served.outputs_per_s[:steps] * STEP_S,
        squares=np.zeros(steps),
    )


def _demands(kind: _Kind, course: Course, sample: Sample, share: float) -> list[Demand]:
    """One for each row of the typical day."""
    return [
        Demand(
            model=kind.model,
            origin=kind.origin,
            tier=kind.tier,
            requests_per_s=row.requests_per_s,
            hourly=row.hourly,
            prompt_tokens=row.prompt_tokens,
            output_tokens=row.output_tokens,
        )
        for row in typical_day(course, sample, share=share, may_wait=kind.tier == "batch")
    ]


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
    """Requests of one kind: sums of each minute, and the lengths of some of them."""

    def __init__(self) -> None:
        self._sums: dict[int, NDArray[np.float64]] = {}
        self._kept: list[NDArray[np.int64]] = []  # hour, prompt, answer
        self._count, self._every = 0, 1

    def add(self, window: Window, rows: NDArray[np.int64], first_s: float) -> None:
        """These rows of a window; the trace's second 0 is `first_s` since midnight or 1970."""
        at_s = window.arrival_s[rows] + first_s
        prompt, output = window.prompt_tokens[rows], window.output_tokens[rows]
        tokens = prompt.astype(float) + output
        minutes, at = np.unique((at_s // _MINUTE_S).astype(np.int64), return_inverse=True)
        columns = (np.ones(rows.size), prompt, output, tokens**2)
        sums = np.stack([np.bincount(at, column) for column in columns], axis=1)
        for minute, row in zip(minutes.tolist(), sums, strict=True):
            self._sums[minute] = self._sums.get(minute, 0.0) + row
        hours = (at_s // HOUR_S).astype(np.int64)
        some = np.stack([hours, prompt, output]).astype(np.int64)[:, :: self._every]
        self._kept.append(some)
        self._count += some.shape[1]
        if self._count > ROWS_KEPT:
            self._kept = [np.concatenate(self._kept, axis=1)[:, ::2]]
            self._count, self._every = self._kept[0].shape[1], 2 * self._every

    def course(self, minutes: NDArray[np.int64], seconds: NDArray[np.float64]) -> Course:
        """Over these minutes, each recorded for so long."""
        nothing = np.zeros(4)
        sums = np.array([self._sums.get(minute, nothing) for minute in minutes.tolist()])
        return Course(
            hour=minutes * int(_MINUTE_S) // int(HOUR_S),
            seconds=seconds,
            requests=sums[:, 0],
            prompt_tokens=sums[:, 1],
            output_tokens=sums[:, 2],
            squares=sums[:, 3],
        )

    def sample(self) -> Sample:
        """Of those kept."""
        hour, prompt, output = np.concatenate(self._kept, axis=1)
        return Sample(hour, prompt.astype(np.int32), output.astype(np.int32))


def _recorded(first_s: float, last_s: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Minutes since second 0, and how many seconds of each lie within the recording.

    Those of which or of whose hour too little was recorded are left out, unless none is left then.
    """
    minutes = np.arange(int(first_s // _MINUTE_S), int(last_s // _MINUTE_S) + 1)
    begin, end = minutes * _MINUTE_S, (minutes + 1) * _MINUTE_S
    seconds = np.maximum(1.0, np.minimum(end, last_s) - np.maximum(begin, first_s))
    _, hour = np.unique(minutes * int(_MINUTE_S) // int(HOUR_S), return_inverse=True)
    enough = np.bincount(hour, seconds)[hour] >= _PART_OF_HOUR_MIN * HOUR_S
    enough &= seconds >= _PART_OF_MINUTE_MIN * _MINUTE_S
    if not enough.any():
        enough[:] = True
    return minutes[enough], seconds[enough]
