"""Recorded runs of real vLLM beside what the simulator says of the same requests.

    python -m bench.replays
    python -m bench.replays --first 50

Each run is answered twice: by the shipped calibration, which never saw it, and after four numbers
were fitted on its own first requests. The others judge. Tables go to stdout; seconds in all.
"""

import argparse
import time

from bench.replays.figures import (
    Compared,
    Stage,
    after_first,
    as_shipped,
    is_inside,
    kv_tokens_of,
    stage,
    with_fit,
)
from bench.replays.fitted import Fit
from bench.replays.recorded import FIRST, Recorded, read, runs

_HEAD = (
    "| run | judged by | what | mean s, simulated | measured | error | median | p95 | each |\n"
    "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Recorded runs of real vLLM, replayed.")
    parser.add_argument("--first", type=int, default=FIRST, help="requests that a fit may see")
    first = parser.parse_args().first
    recorded = [read(run) for run in runs()]
    if not 10 <= first <= recorded[0].at_s.size - 10:
        parser.error(f"--first {first}: of {recorded[0].at_s.size} requests, 10 at least must be "
                     "seen and 10 left to judge")  # fmt: skip
    print("## As shipped, nothing of the run seen\n")
    print(_HEAD)
    told = [_say_shipped(one) for one in recorded]
    print("\n" + "\n".join(told))
    print(f"\n## Calibrated on the run's own first {first} requests\n")
    print(_HEAD)
    fits = []
    for one in recorded:
        fit, judged = after_first(one, first)
        fits.append(fit)
        _say(one, f"other {one.at_s.size - first}", judged)
        _say(one, "all", stage(one, judged.replayed))
    print("\n" + "\n".join(_told(one, fit) for one, fit in zip(recorded, fits, strict=True)))
    print("\n## One run's numbers for another model on the same chip\n")
    print(_HEAD)
    for one, other in ((0, 1), (1, 0)):
        replayed = with_fit(recorded[one], fits[other], kv_tokens_of(recorded[one]))
        _say(recorded[one], "all", stage(recorded[one], replayed))


def _say_shipped(recorded: Recorded) -> str:
    model, judged = as_shipped(recorded)
    _say(recorded, "all", judged)
    begun_s = time.perf_counter()
    as_shipped(recorded)
    took_s = time.perf_counter() - begun_s
    ttft, tpot = (("outside", "inside")[inside] for inside in is_inside(model, judged))
    width = model.interval
    return (
        f"{recorded.run.name}: rung {model.rung}; measured TTFT {ttft} x {width.ttft_low:.2f} to "
        f"{width.ttft_high:.2f}, TPOT {tpot} x {width.tpot_low:.2f} to {width.tpot_high:.2f}; KV "
        f"tokens {model.kv_tokens}, the engine's {recorded.kv_tokens or 'not recorded'}; "
        f"preemptions {judged.replayed.preemptions}; answered in {took_s * 1e3:.0f} ms"
    )


def _told(recorded: Recorded, fit: Fit) -> str:
    return (
        f"{recorded.run.name}: seconds x {fit.memory:.3f} memory, x {fit.compute:.3f} compute, "
        f"x {fit.context:.3f} KV reads; {fit.overhead_s * 1e3:.0f} ms before a step takes a request"
    )


def _say(recorded: Recorded, judged_by: str, judged: Stage) -> None:
    for what, one in (("TTFT", judged.ttft), ("TPOT", judged.tpot)):
        print(f"| {recorded.run.name} | {judged_by} | {what} | {_cells(one)} |", flush=True)


def _cells(one: Compared) -> str:
    digits = 2 if one.mean[1] > 1 else 4
    errors = [simulated / measured - 1.0 for simulated, measured in (one.mean, one.median, one.p95)]
    means = " | ".join(f"{value:.{digits}f}" for value in one.mean)
    return f"{means} | " + " | ".join(f"{error:+.1%}" for error in errors) + f" | {one.each:.1%}"


main()
