"""A fleet of two like groups with step times that one can compute by hand, for tests."""

from collections.abc import Sequence

import numpy as np

from argosy.fleet import load
from argosy.perf.step_time import StepTime
from argosy.simulator.scenario import Scenario, scenario_of, with_step_times
from argosy.simulator.traces.window import Trace, window_of

STEP = StepTime(
    knots_tokens=(1.0, 64.0, 8192.0),
    knots_s=(0.010, 0.012, 0.5),
    context_s_per_token=1e-7,
    pair_s=1e-9,
)
TEXT = """
fleet: small
pools:
  - {name: near, launcher: {kind: planned}, region: aws/us-east-1, chip: H100-SXM, nodes: {max: 9}}
  - {name: far, launcher: {kind: planned}, region: gcp/us-east5, chip: TPU-v6e, nodes: {max: 9}}
models:
  - name: chat
    architecture: Llama-3.1-8B
    slo: {ttft_s_p95: 1.0, itl_s_p99: 0.05}
deployments:
  - {model: chat, pool: near, replicas: 2, engine: {kind: vllm, requests_max: 8}}
  - {model: chat, pool: far, replicas: 2, engine: {kind: vllm, requests_max: 8}, layout: {tp: 2}}
tenants:
  - {name: acme, tier: enterprise}
  - {name: web, tier: consumer}
links:
  - {between: [aws/us-east-1, gcp/us-east5], round_trip_s: 0.02}
"""


def small_scenario(text: str = TEXT) -> Scenario:
    """With `STEP` for every replica."""
    return with_step_times(scenario_of(load.parse(text, source="small.yaml")), STEP)


def trace_of_rows(
    arrival_s: Sequence[float],
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    tiers: Sequence[int] | None = None,
) -> Trace:
    """Requests for `chat` from aws/us-east-1; tier 0 is acme's, 1 is web's."""
    rows = len(arrival_s)
    ranks = np.array(tiers if tiers is not None else [1] * rows, np.int8)
    columns = {
        "arrival_s": np.array(arrival_s, np.float64),
        "prompt_tokens": np.array(prompt_tokens, np.int32),
        "output_tokens": np.array(output_tokens, np.int32),
        "tier": ranks,
        "tenant": ranks.astype(np.int16),
    }
    return Trace(
        pieces=lambda: iter([window_of(columns, rows=rows)]),
        found="rows of a test",
        models=("chat",),
        tenants=("acme", "web"),
        origins=("aws/us-east-1",),
    )
