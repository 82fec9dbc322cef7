"""ServeGen's week 1 as it was: how much was asked when, and the requests of any ten minutes of it.

What is replayed are the requests that `open_trace` draws for ten minutes of an hour (from its half
on, or its busiest ten), each client with its own irregular gaps and lengths. `deepseek-r1` and
`mm-image` were published for one day: it stands for each of the seven.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyarrow import compute, parquet

from argosy.simulator.scenario import Scenario
from argosy.simulator.traces import Trace, Window
from argosy.simulator.traces.files import TraceFile
from argosy.simulator.traces.servegen import STEP_S, read_servegen
from argosy.simulator.traces.window import joined, take, window_of

TRACES = Path(__file__).parents[2] / "traces"
RATES = TRACES / "servegen_client_rates_week1.parquet"
TOKENS = TRACES / "servegen_client_token_quantiles_week1.parquet"
ORIGIN = "aws/us-east-2"  # the recording has none; the nearest to the other regions
DAY_S = 86_400


class Stand(NamedTuple):
    """What stands for a model of the recording."""

    name: str
    architecture: str
    ttft_s_p95: float
    itl_s_p99: float
    survives_a_cloud: bool
    context_tokens: int = 32_768


STANDS = (
    Stand("m-small", "Qwen3-14B", 1.0, 0.05, True),
    Stand("m-mid", "Llama-3.1-70B", 2.0, 0.1, True),
    Stand("m-large", "Qwen3-235B-A22B", 2.0, 0.1, True),
    Stand("mm-image", "Llama-3.1-70B", 3.0, 0.1, False),
    Stand("deepseek-r1", "DeepSeek-R1", 4.0, 0.1, False, 65_536),
)


class Hour(NamedTuple):
    """An hour of the week to replay, and why."""

    begin_s: int  # of the ten minutes that are replayed, from the recording's first midnight
    why: str
    is_peak: bool


class Week:
    """The recording: how much is asked when, and the requests of any ten minutes."""

    def __init__(self, *, seed: int) -> None:
        self._table, self._seed = parquet.read_table(RATES), seed
        self._known: dict[tuple[str, int], Window] = {}
        self.rates: dict[str, NDArray[np.float64]] = {}  # requests/s, by steps of STEP_S
        for stand in STANDS:
            rows = self._table.filter(compute.equal(self._table["model"], stand.name))
            steps = rows["t_s"].to_numpy() // STEP_S
            self.rates[stand.name] = np.bincount(steps, rows["rate_rps"].to_numpy())

    def step_s(self, model: str, begin_s: int) -> int:
        """That second as the model's recording has it: the one day that there is, if it is one."""
        days = max(1, self.rates[model].size * STEP_S // DAY_S)
        return begin_s % (days * DAY_S)

    def rate(self, model: str, begin_s: int) -> float:
        """Requests per second in these ten minutes."""
        return float(self.rates[model][self.step_s(model, begin_s) // STEP_S])

    def hourly(self, model: str) -> NDArray[np.float64]:
        """Requests per second by hour."""
        rates = self.rates[model]
        return rates[: rates.size // 6 * 6].reshape(-1, 6).mean(axis=1)

    def step_of(self, hour: int, *, busiest: bool) -> int:
        """The second at which an hour's busiest ten minutes begin, or those after its half."""
        steps = range(hour * 3600, (hour + 1) * 3600, STEP_S)
        if not busiest:
            return steps[3]
        return max(steps, key=lambda at: sum(self.rate(one.name, at) for one in STANDS))

    def requests(self, model: str, begin_s: int) -> Window:
        """All of them, from second 0 on."""
        at_s = self.step_s(model, begin_s)
        if (model, at_s) not in self._known:
            wanted = compute.and_(
                compute.equal(self._table["model"], model), compute.equal(self._table["t_s"], at_s)
            )
            packed = io.BytesIO()
            parquet.write_table(self._table.filter(wanted), packed)
            tokens = TraceFile(TOKENS)
            trace = read_servegen(TraceFile(packed), seed=self._seed, tokens=tokens, models=[model])
            window = joined(list(trace.windows()))
            self._known[model, at_s] = window._replace(arrival_s=window.arrival_s - at_s)
        return self._known[model, at_s]

    def forget(self) -> None:
        """The requests that were drawn."""
        self._known.clear()


def hours_of(week: Week, between: int, *, busiest: bool = False) -> Iterator[Hour]:
    """Each model's peak of the week, and so many evenly over it."""
    found: dict[int, str] = {}
    for stand in STANDS:
        hour = int(np.argmax(week.hourly(stand.name)))
        found[hour] = f"{found[hour]}, {stand.name}" if hour in found else f"peak of {stand.name}"
    for hour, why in found.items():
        yield Hour(week.step_of(hour, busiest=busiest), why, is_peak=True)
    for number in range(between):
        hour = (2 * number + 1) * 168 // (2 * between)
        yield Hour(week.step_of(hour, busiest=busiest), "between", is_peak=False)


def text_of(hour: Hour) -> str:
    """Day 3, 14:20."""
    day, second = divmod(hour.begin_s, DAY_S)
    return f"day {day + 1}, {second // 3600:02}:{second % 3600 // 60:02} ({hour.why})"


class Recorded(NamedTuple):
    """A cell of the plan, asked by the recording; it takes the place of `RegionCell`."""

    scenario: Scenario
    window: Window
    tenant: str

    @property
    def requests_per_s(self) -> float:
        """On average over what was recorded."""
        return max(1e-9, self.window.rows / STEP_S)

    def trace(self, *, seed: int, until_s: float, share: float = 1.0) -> Trace:
        """Its requests until then, whatever the seed; at a share of 1.5 as fast as that."""
        del seed
        rows = int(self.window.arrival_s.searchsorted(until_s * share))
        window = take(self.window, np.arange(rows))
        window = window._replace(arrival_s=window.arrival_s / share)
        return Trace(
            pieces=lambda: iter([window]),
            found="ServeGen",
            models=self.scenario.models,
            tenants=(self.tenant,),
            origins=(ORIGIN,),
        )


def thinned(window: Window, rows: NDArray[np.int64]) -> Window:
    """These requests, all of one tenant and one model."""
    columns: dict[str, object] = {
        "arrival_s": window.arrival_s[rows],
        "prompt_tokens": window.prompt_tokens[rows],
        "output_tokens": window.output_tokens[rows],
    }
    return window_of(columns, rows=rows.size)
