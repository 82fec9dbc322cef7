"""The simulator's gateway behind the same calls."""

import numpy as np
from agreement_hour import BLOCK_BYTES, BLOCKS_MAX, REPLICAS, TENANTS, Arrival

from argosy.fleet.config import Fleet
from argosy.policies.admission.bounds import ANSWER_TOKENS_PREDICTED, cost_predicted_tokens
from argosy.policies.admission.work import RANKS
from argosy.policies.routing.sessions import number_of
from argosy.simulator.gateway import gateway as sim
from argosy.simulator.gateway import standing
from argosy.simulator.gateway.state import (
    NO_SESSION,
    Limits,
    SimulatedReplica,
    gateway_of,
    rules_of,
)

NAMES = [each.name for each in REPLICAS]
POOLS = sorted({each.pool for each in REPLICAS})
TENANT_NAMES = [tenant.name for tenant in TENANTS]


class SimulatedBody:
    """One model's."""

    def __init__(self, fleet: Fleet, asked: list[Arrival], *, seed: int = 0) -> None:
        self.log: list[tuple] = []
        self.sent: list[tuple[int, str]] = []
        self.gateway = gateway_of(
            [
                SimulatedReplica(name=each.name, pool=POOLS.index(each.pool), slots=each.slots)
                for each in REPLICAS
            ],
            tenants=TENANT_NAMES,
            rules=rules_of(fleet, seed=seed),
            limits=Limits(requests_max=len(asked), block_bytes=BLOCK_BYTES, blocks_max=BLOCKS_MAX),
        )
        self.ends = np.cumsum([0] + [len(arrival.blocks) for arrival in asked])
        hashes = [block for arrival in asked for block in arrival.blocks]
        self.gateway.replace(blocks=np.array(hashes, np.uint64))

    def write_down(self, now_s: float) -> None:
        for event in self.gateway.events[: self.gateway.told[0]]:
            request, replica = int(event["request"]), int(event["replica"])
            what = sim.WORDS[event["kind"]]
            if what in ("queued", "stranded"):
                continue
            name = NAMES[replica] if what == "sent" else ""
            self.log.append((now_s, what, request, name, float(event["retry_after_s"])))
            if what == "sent":
                self.sent.append((request, name))

    def arrive(self, arrival: Arrival, now_s: float) -> None:
        number, tenant, session = arrival.request, arrival.tenant, arrival.session
        ask = sim.Ask(
            model=0,
            tenant=TENANT_NAMES.index(tenant.name),
            rank=RANKS[tenant.tier],
            cost_tokens=cost_predicted_tokens(
                arrival.prompt_bytes, arrival.answer_tokens_asked or ANSWER_TOKENS_PREDICTED
            ),
            prompt_bytes=arrival.prompt_bytes,
            session=NO_SESSION if session is None else number_of(session),
            blocks_begin=int(self.ends[number]),
            blocks_end=int(self.ends[number + 1]),
        )
        sim.arrive(self.gateway, number, ask, now_s)
        self.write_down(now_s)

    def first_token(self, request: int, now_s: float) -> None:
        sim.first_token(self.gateway, request, now_s)

    def finished(self, request: int, tokens: tuple[int, int, int], now_s: float) -> None:
        sim.finished(self.gateway, request, tokens, now_s)
        self.write_down(now_s)

    def cancelled(self, request: int, now_s: float) -> None:
        sim.cancelled(self.gateway, request, 0, now_s)
        self.write_down(now_s)

    def retried(self, request: int, now_s: float) -> None:
        sim.let_go(self.gateway, request)
        sim.again(self.gateway, request, now_s)
        self.write_down(now_s)

    def sweep(self, now_s: float) -> None:
        sim.sweep(self.gateway, now_s)
        self.write_down(now_s)

    def change(self, replicas: tuple[str, ...], what: str, now_s: float) -> None:
        for name in replicas:
            number = NAMES.index(name)
            if what == "joins":
                cache_bytes = REPLICAS[number].cache_bytes
                standing.replica_joins(self.gateway, number, cache_bytes, now_s)
            elif what == "leaves":
                standing.replica_leaves(self.gateway, number)
            else:
                standing.replica_is_suspect(self.gateway, number, what == "is suspect")
        sim.table_changed(self.gateway, now_s)
        self.write_down(now_s)
