"""python -m bench.planner.melange: Mélange's problem, by its program and by ours.

Examples: python -m bench.planner.melange                 # three mixes, two SLOs, six request rates
          python -m bench.planner.melange --slices 4 --rates 4 16 --requests 9000

Mélange (Griggs et al. 2024, arXiv 2404.14527; tyler-griggs/melange-release) rents GPUs for one
model at one instant: requests are cut into buckets by prompt and answer, a bucket into slices, and
each slice goes to one GPU type; the load of a slice is its rate over the most that such a GPU
sustains of that bucket, and whole GPUs carry the loads of their type. `melange_usd` is that
program, written again from the paper's and the repository's description. Both programs are given
the same table of rates, and both are solved to the end.

From the repository: the program, the toy case (`melange/main.py`), the prices of A10G and A100.
From its blog page: Llama-2-7B, TPOT of 40 and 120 ms, short, long and mixed (80 % short) requests.
From the paper, as remembered and not looked up again: the prices of L4 and H100 (no large cloud
rented H100 singly: RunPod's 4.69 / 2.29 times the A100's price), and that it cut buckets in eight.
Ours: the rates, for only plots of theirs are published. They are of `planner/capacity`: the largest
Poisson rate at which one replica, simulated, keeps 99 % of gaps within the SLO (theirs: the mean).
Prompts are read 256 tokens a step. Lengths are lognormal with the means of LMSYS-Chat-1M (Zheng et
al. 2023: 69.5 and 214.5 tokens a turn) and of PubMed (Cohan et al. 2018: 3,016 and 203 words, at
4/3 tokens a word); their spread is assumed.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import highspy
import numpy as np
from numpy.typing import NDArray

from argosy.fleet.architectures import from_config
from argosy.fleet.catalogue import chip
from argosy.fleet.layout import Layout
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.refusal import DoesNotFit
from argosy.perf.replica import replica
from argosy.planner.capacity.lengths import LengthClass
from argosy.planner.capacity.sustain import Drawn, Limits, OneReplica
from argosy.planner.plan import Plan
from argosy.planner.problem import Need, Option, Period, Problem, Slot, Supply, SupplyPool
from argosy.planner.solving.solve import solve
from argosy.simulator.traces import Lognormal, Lognormals

USD_PER_HOUR = {"L4": 0.70, "A10G": 1.01, "A100-80GB": 3.67, "H100-SXM": 7.516}
TPOT_S = (0.12, 0.04)
RATES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # requests/s
SLICES = (1, 4, 8)  # of a bucket: the toy's, what the repository finds enough, the paper's
REQUESTS = 3_000  # of a try
SHORT_SHARE = 0.8  # of the mixed requests
EQUAL = 1 - 1e-6
# Edges of the buckets in tokens; the repository's are 1-25, 25-100, 100-250 and on.
PROMPT_EDGES = (1, 25, 100, 250, 500, 1000, 2000, 4000, 8000, 16000)
OUTPUT_EDGES = (1, 25, 100, 250, 500, 1000)
SHARE_MIN = 0.002  # of the requests: a smaller bucket is added to its nearest neighbour
LLAMA_2_7B = {  # its config.json
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "vocab_size": 32000, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
ENGINE = EngineSettings(
    name="vllm",
    requests_max=256,
    prefill_tokens_max=256,
    memory_share=0.9,
    prefix_cache=False,
)
# Prompt, answer: mean and 95th percentile of tokens.
LENGTHS = {"short": ((69.5, 240.0), (214.5, 640.0)), "long": ((4020.0, 9000.0), (270.0, 500.0))}

Floats = NDArray[np.float64]


class Bucket(NamedTuple):
    """A cell of the grid, by its middle."""

    prompt_tokens: int
    output_tokens: int


class Table(NamedTuple):
    """What both programs are given."""

    usd_per_hour: Floats  # [gpu]
    rates: Floats  # requests/s of one GPU: [gpu, bucket]; 0: not within the SLO
    names: tuple[str, ...]


def main() -> None:
    """Measure the tables, solve both, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.planner.melange", description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--slices", type=int, nargs="+", default=SLICES)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    asked = parser.parse_args()
    toy()
    grid, shares = mixes()
    titles = "".join(f"{f'MELANGE/{count}':>11}" for count in asked.slices)
    print(
        f"\n{len(grid)} buckets; Mélange's program with each cut into 1 or more slices; USD an hour"
    )
    print(f"{'MIX':<7}{'TPOT':>5}{'REQ/S':>7}{titles}{'OURS':>9}  {'OURS RENTS':<42}ONE TYPE ALONE")
    rows: list[tuple[float, list[float]]] = []
    for tpot_s in TPOT_S:
        table = measured(grid, tpot_s, asked.requests)
        for mix, share in shares.items():
            for rate in asked.rates:
                rows += compare(table, f"{mix:<7}{tpot_s:>5.2f}", rate * share, asked.slices)
    print()
    for place, count in enumerate(asked.slices):
        times = np.array([ours / theirs[place] for ours, theirs in rows])
        less, more = int((times < EQUAL).sum()), int((times > 2 - EQUAL).sum())
        told = f"{1 - times.mean():.1%} cheaper on average, {1 - times.min():.1%} at most"
        print(f"buckets in {count}: of {times.size} cases ours is cheaper in {less}, "
              f"dearer in {more}; {told}")  # fmt: skip


def toy() -> None:
    """The repository's own case, the one table of rates that it has."""
    table = Table(
        usd_per_hour=np.array([1.01, 3.67]),
        rates=np.array([[5.0, 1.0, 10.0, 5.0], [20.0, 2.0, 50.0, 20.0]]),
        names=("A10G", "A100"),
    )
    asked = 16.0 * np.array([0.25, 0.125, 0.375, 0.25])
    theirs, counts = melange_usd(table, asked, slices=1)
    ours, mine = ours_usd(table, asked)
    print("the repository's toy case (two GPU types, four buckets, 16 requests/s, one slice):")
    print(f"  Mélange {theirs:.2f} ({rented(table, counts)}), ours {ours:.2f} "
          f"({rented(table, mine)}) USD an hour")  # fmt: skip


def compare(
    table: Table, case: str, asked: Floats, slices: Sequence[int]
) -> Iterator[tuple[float, list[float]]]:
    """Print one row; ours and, by slices, theirs. Nothing where a bucket fits no GPU type."""
    used = asked > 0
    table, asked = table._replace(rates=table.rates[:, used]), asked[used]
    lacking = int((~(table.rates > 0).any(axis=0)).sum())
    if lacking:
        print(f"{case}{asked.sum():>7.0f}  {lacking} buckets are in time on no GPU type")
        return
    theirs = [melange_usd(table, asked, slices=count)[0] for count in slices]
    ours, counts = ours_usd(table, asked)
    single = [
        (float(np.ceil((asked / row).sum() - 1e-9) * usd), name)
        for usd, row, name in zip(table.usd_per_hour, table.rates, table.names, strict=True)
        if (row > 0).all()
    ]
    told = "none can" if not single else "{:.2f} {}".format(*min(single))
    usd = "".join(f"{one:>11.2f}" for one in theirs)
    print(f"{case}{asked.sum():>7.0f}{usd}{ours:>9.2f}  {rented(table, counts):<42}{told}")
    yield ours, theirs


def rented(table: Table, counts: Floats) -> str:
    """2 L4, 1 H100-SXM."""
    pairs = zip(counts, table.names, strict=True)
    return ", ".join(f"{count:.0f} {name}" for count, name in pairs if count > 0.5)


def melange_usd(table: Table, asked: Floats, *, slices: int) -> tuple[float, Floats]:
    """Its program: USD an hour, and GPUs by type.

    Slices of a bucket are alike, so they are counted instead of numbered: an integer for each
    bucket and type in place of so many zeros and ones. The optimum is the same.
    """
    gpus, buckets = table.rates.shape
    solver = quiet()
    for usd in table.usd_per_hour:
        solver.addVar(0.0, highspy.kHighsInf)
        solver.changeColCost(solver.getNumCol() - 1, float(usd))
    for gpu in range(gpus):
        for bucket in range(buckets):
            able = table.rates[gpu, bucket] > 0
            solver.addVar(0.0, float(slices) if able else 0.0)
    count = solver.getNumCol()
    kinds = np.full(count, highspy.HighsVarType.kInteger)
    solver.changeColsIntegrality(count, np.arange(count, dtype=np.int32), kinds)
    for bucket in range(buckets):  # each slice goes to one type
        of = np.array([gpus + gpu * buckets + bucket for gpu in range(gpus)], np.int32)
        solver.addRow(float(slices), float(slices), gpus, of, np.ones(gpus))
    for gpu in range(gpus):  # the slices' loads fit into the GPUs of the type
        able = np.flatnonzero(table.rates[gpu] > 0)
        columns = np.array([gpu, *(gpus + gpu * buckets + able)], np.int32)
        loads = asked[able] / slices / table.rates[gpu, able]
        solver.addRow(-highspy.kHighsInf, 0.0, columns.size, columns, np.array([-1.0, *loads]))
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.setOptionValue("time_limit", 60.0)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        print(f"  Mélange's program was left at {solver.getModelStatus()}", file=sys.stderr)
    found = np.array(solver.getSolution().col_value)
    return float(table.usd_per_hour @ np.round(found[:gpus])), np.round(found[:gpus])


def quiet() -> highspy.Highs:
    """A solver that prints nothing."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    return solver


def ours_usd(table: Table, asked: Floats) -> tuple[float, Floats]:
    """Our plan of it: one hour, everything on demand, no headroom, no losses."""
    answer = solve(problem_of(table, asked), gap=1e-6, seconds_max=60.0)
    assert isinstance(answer, Plan), answer
    counts = np.zeros(len(table.names))
    for drawn in answer.drawn:
        counts[answer.problem.supplies[drawn.supply].pool] += drawn.chips[0]
    return answer.money.total, counts


def problem_of(table: Table, asked: Floats) -> Problem:
    """One pool for each GPU type, one need and one length class for each bucket."""
    most = int(np.ceil(sum(asked / np.where(table.rates > 0, table.rates, np.inf).min(axis=0)))) + 1
    pools = tuple(
        SupplyPool(
            name=name,
            region="any/where",
            cloud="any",
            maker="NVIDIA",
            chip=name,
            chips_per_node=1,
            nodes_max=10_000 + most,
            pue=1.0,
            carbon_g_per_kwh=None,
        )
        for name in table.names
    )
    return Problem(
        periods=(Period(name="now", begin="2024-04-22", days=1 / 24),),
        slots=(Slot(period=0, hour=0, hours=1.0),),
        pools=pools,
        supplies=tuple(
            Supply(
                name=pool.name,
                pool=place,
                kind="on_demand",
                price_usd_per_chip_hour=float(table.usd_per_hour[place]),
                nodes_max=pool.nodes_max,
                periods=(0,),
            )
            for place, pool in enumerate(pools)
        ),
        options=tuple(option_of(place, row) for place, row in enumerate(table.rates)),
        needs=tuple(need_of(place, float(rate)) for place, rate in enumerate(asked)),
        headroom=0.0,
    )


def option_of(pool: int, rates: Floats) -> Option:
    """One GPU of a type."""
    known = tuple(float(rate) for rate in rates)
    return Option(
        model="model",
        pool=pool,
        engine="vllm",
        layout=Layout(),
        chips=1,
        requests_per_s=known,
        requests_per_s_low=known,
        requests_per_s_high=known,
        power_w=None,
        power_w_idle=None,
    )


def need_of(bucket: int, rate: float) -> Need:
    """One bucket's requests."""
    return Need(
        name=f"bucket {bucket}",
        model="model",
        tier="consumer",
        origin="any/where",
        length_class=bucket,
        tokens_in=1.0,
        tokens_out=1.0,
        requests_per_s=(rate,),
        regions=("any/where",),
    )


def mixes(rows: int = 200_000) -> tuple[list[Bucket], dict[str, Floats]]:
    """The buckets that any mix uses, and each mix's shares of them."""
    counts = {name: _counts(*law, rows=rows) for name, law in LENGTHS.items()}
    counts["mixed"] = SHORT_SHARE * counts["short"] + (1 - SHORT_SHARE) * counts["long"]
    counts = {name: _merged(share) for name, share in counts.items()}
    used = np.argwhere(sum(counts.values()) > 0)
    grid = [Bucket(_middle(PROMPT_EDGES, i), _middle(OUTPUT_EDGES, j)) for i, j in used]
    return grid, {name: share[tuple(used.T)] for name, share in counts.items()}


def _counts(prompt: tuple[float, float], output: tuple[float, float], *, rows: int) -> Floats:
    chance = np.random.default_rng(0)
    columns = []
    for (mean, p95), edges in ((prompt, PROMPT_EDGES), (output, OUTPUT_EDGES)):
        # Of a lognormal: mean = exp(mu + s^2 / 2), p95 = exp(mu + 1.645 s).
        s = 1.645 - np.sqrt(1.645**2 - 2 * np.log(p95 / mean))
        drawn = chance.lognormal(np.log(mean) - s * s / 2, s, rows)
        columns.append(np.clip(drawn, edges[0], edges[-1] - 1))
    counted, _, _ = np.histogram2d(*columns, bins=(PROMPT_EDGES, OUTPUT_EDGES))
    return counted / rows


def _merged(share: Floats) -> Floats:
    """Buckets of next to nothing join the nearest of more, so that few rates must be measured."""
    kept = np.argwhere(share >= SHARE_MIN)
    merged = np.where(share >= SHARE_MIN, share, 0.0)
    for place in np.argwhere((share > 0) & (share < SHARE_MIN)):
        nearest = kept[np.abs(kept - place).sum(axis=1).argmin()]
        merged[tuple(nearest)] += share[tuple(place)]
    return merged


def _middle(edges: tuple[int, ...], place: int) -> int:
    return (edges[place] + edges[place + 1]) // 2


def measured(grid: list[Bucket], tpot_s: float, requests: int) -> Table:
    """What one GPU of each type sustains of each bucket."""
    begun_s = time.perf_counter()
    rows: list[list[float]] = []
    drawn = [Drawn(_class_of(bucket), requests=requests) for bucket in grid]
    limits = Limits(ttft_s_p95=None, itl_s_p99=tpot_s)
    for name in USD_PER_HOUR:
        print(f"{name} at {tpot_s:g} s: {len(grid)} buckets", end="", file=sys.stderr, flush=True)
        found = replica(from_config(LLAMA_2_7B, "Llama-2-7B"), chip(name), Layout(), ENGINE)
        assert not isinstance(found, DoesNotFit), found.message
        one = OneReplica(found, ENGINE)
        able = [b.prompt_tokens + b.output_tokens <= found.kv_tokens for b in grid]
        rows.append(
            [
                one.rate(asked, limits).requests_per_s if fits else 0.0
                for asked, fits in zip(drawn, able, strict=True)
            ]
        )
        print(f", {time.perf_counter() - begun_s:.0f} s", file=sys.stderr)
    return Table(
        usd_per_hour=np.array(list(USD_PER_HOUR.values())),
        rates=np.array(rows),
        names=tuple(USD_PER_HOUR),
    )


def _class_of(bucket: Bucket) -> LengthClass:
    """Requests that all are of the bucket's middle."""
    laws = [Lognormal(tokens_mean=float(n), tokens_p95=float(n)) for n in bucket]
    return LengthClass(
        model="model",
        lengths=Lognormals(prompt=laws[0], output=laws[1]),
        chats=None,
        tokens_in=float(bucket.prompt_tokens),
        tokens_out=float(bucket.output_tokens),
        members=(),
    )


if __name__ == "__main__":
    main()
