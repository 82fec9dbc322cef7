"""The demand that rules are tried on, and the fleet that serves it: one model, one deployment."""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from argosy.fleet import load
from argosy.planner.capacity.sustain import Limits, OneReplica
from argosy.planner.capacity.sustained import Sample, sustains_of
from argosy.policies.autoscaling import Demand
from argosy.simulator.scenario import Scenario, scenario_of
from argosy.simulator.traces import Trace, Window, open_trace, scale, without_blocks
from argosy.simulator.traces.window import joined, window_of
from bench.autoscaling.peers import Tuned

TRACES = Path("traces")
REPLICAS_MEAN = 5.0  # of load: traces are scaled to it, where they are ServeGen's
REPLICAS_MAX = 64
SAMPLE = 6_000
FLEET = """
fleet: autoscaled
gateway: {{replica_wait_s: 30}}
pools:
  - {{name: pool, launcher: {{kind: planned}}, region: azure/westus3, chip: {chip},
     nodes: {{max: 99}}, start_s: {start_s}}}
models:
  - {{name: chat, architecture: {architecture}, slo: {{ttft_s_p95: 2.0, itl_s_p99: 0.2}}}}
deployments:
  - model: chat
    pool: pool
    replicas: {replicas}
    autoscale: {{min: 1, max: {most}}}
    engine: {{kind: vllm, context_tokens: {context}, prefill_tokens_max: 2048}}
    layout: {{tp: {tp}, dtype: fp8}}
"""


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """What serves it."""

    chip: str
    architecture: str
    tp: int
    context: int


LARGE = Replica(chip="H100-SXM", architecture="Llama-3.1-70B", tp=2, context=65_536)
SMALL = Replica(chip="L4", architecture="Llama-3.1-8B", tp=1, context=16_384)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One trace, made ready."""

    name: str
    trace: Trace
    seconds: float
    requests: int
    tuned: Tuned
    loads: NDArray[np.float64]  # of each minute, in replicas
    replica: Replica
    before: Demand  # minutes of history before it begins

    def scenario(self, start_s: float) -> Scenario:
        """It begins with what the first ten minutes ask for."""
        begin = max(1, int(np.ceil(self.loads[:10].mean() / 0.8)))
        return fleet_of(self.replica, start_s, begin)


def fleet_of(replica: Replica, start_s: float, replicas: int) -> Scenario:
    own = msgspec.structs.asdict(replica)
    text = FLEET.format(start_s=start_s, replicas=replicas, most=REPLICAS_MAX, **own)
    return scenario_of(load.parse(text, source="autoscaled.yaml"))


def azure(kind: str, times: float) -> Case:
    """An hour of Azure's, `times` the users."""
    trace = open_trace(TRACES / f"azure_llm_2023_{kind}.csv.gz")
    return made(f"azure {kind}", scale(trace, times, seed=1, jitter_s=60.0), LARGE)


def servegen(
    model: str, replica: Replica, hours: tuple[float, float], mean: float = REPLICAS_MEAN
) -> Case:
    """Hours of ServeGen's week, at rates that keep `mean` replicas busy; the past is known."""
    with TemporaryDirectory() as folder:
        first = _first_times(model)
        sample = open_trace(_scaled(model, Path(folder), hours[1], first), seed=1)
        window = joined(list(sample.windows()))
        times = first * mean / loads_of(window, tuned_of(window, replica)).mean()
        trace = open_trace(_scaled(model, Path(folder), hours[1], times), seed=1)
        return made(f"servegen {model}", trace, replica, begin_s=hours[0] * 3600.0)


def _first_times(model: str) -> float:
    """So that a first drawing is short."""
    rows = np.genfromtxt(
        TRACES / "servegen_total_rate_week1.csv.gz", delimiter=",", names=True, dtype=None,
        encoding="utf-8",
    )  # fmt: skip
    return 1.0 / float(rows["rate_rps"][rows["model"] == model].mean())


def _scaled(model: str, folder: Path, hours: float, times: float) -> Path:
    """The clients' rates, each so many times as high: as bursty as they are."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    name = "servegen_client_rates_week1.parquet"
    table = parquet.read_table(TRACES / name)
    table = table.filter(
        pc.and_(pc.equal(table["model"], model), pc.less(table["t_s"], hours * 3600))
    )
    place = table.column_names.index("rate_rps")
    table = table.set_column(place, "rate_rps", pc.multiply(table["rate_rps"], times))
    parquet.write_table(table, folder / name)
    tokens = name.replace("client_rates", "client_token_quantiles")
    (folder / tokens).write_bytes((TRACES / tokens).read_bytes())
    return folder / name


def made(name: str, trace: Trace, replica: Replica, *, begin_s: float = 0.0) -> Case:
    """Drawn once, for all rules; what comes before `begin_s` is history alone."""
    drawn = joined(list(without_blocks(trace).windows()))
    fits = drawn.prompt_tokens.astype(np.int64) + drawn.output_tokens <= 0.95 * replica.context
    all_ = _window(drawn, fits, 0.0)
    before = _window(drawn, fits & (drawn.arrival_s < begin_s), 0.0)
    window = _window(drawn, fits & (drawn.arrival_s >= begin_s), begin_s)
    tuned = tuned_of(all_, replica)
    return Case(
        name=name,
        trace=Trace(
            pieces=lambda: iter([window]), found=trace.found, models=("chat",), tenants=("default",)
        ),
        seconds=float(window.arrival_s[-1]),
        requests=window.rows,
        tuned=tuned,
        loads=loads_of(window, tuned),
        replica=replica,
        before=history_of(before, begin_s),
    )


def _window(drawn: Window, kept: NDArray[np.bool_], begin_s: float) -> Window:
    columns: dict[str, object] = {
        "arrival_s": drawn.arrival_s[kept] - begin_s,
        "prompt_tokens": drawn.prompt_tokens[kept],
        "output_tokens": drawn.output_tokens[kept],
    }
    return window_of(columns, rows=int(kept.sum()))


def history_of(window: Window, until_s: float) -> Demand:
    """By minute; an answer is counted when its request came."""
    minute, minutes = (window.arrival_s / 60.0).astype(np.int64), round(until_s / 60.0)

    def sums(weights: NDArray[np.int32] | None = None) -> tuple[int, ...]:
        return tuple(np.bincount(minute, weights, minlength=minutes).astype(int).tolist())

    return Demand(
        step_s=60.0,
        until_s=0.0,
        requests=sums(),
        prompt_tokens=sums(window.prompt_tokens),
        batch_requests=(0,) * minutes,
        batch_prompt_tokens=(0,) * minutes,
        answered=sums(),
        output_tokens=sums(window.output_tokens),
    )


def tuned_of(window: Window, replica: Replica) -> Tuned:
    """One replica's, for requests from all over the trace."""
    scenario = fleet_of(replica, 60.0, 1)
    group, slo = scenario.groups[0], scenario.slos[0]
    places = np.linspace(0, window.rows - 1, SAMPLE).astype(np.int64)
    lengths = (window.prompt_tokens[places], window.output_tokens[places])
    one = OneReplica(group.perf, replace(group.engine, prefix_cache=False))
    limits = Limits(ttft_s_p95=slo.ttft_s_p95, itl_s_p99=slo.itl_s_p99)
    rate = one.rate(Sample(*lengths), limits)  # type: ignore[arg-type]
    return Tuned(
        requests_per_s=rate.requests_per_s,
        batch=rate.at.batch_mean,
        sustains=sustains_of(group, slo, lengths),
    )


def loads_of(window: Window, tuned: Tuned) -> NDArray[np.float64]:
    """By minute of arrival, answers as long as they will be."""
    busy_s = (
        window.prompt_tokens / tuned.sustains.prefill_tokens_per_s
        + window.output_tokens / tuned.sustains.decode_tokens_per_s
    )
    return np.bincount((window.arrival_s / 60.0).astype(np.int64), busy_s) / 60.0
