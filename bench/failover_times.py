"""python -m bench.failover_times: how soon a stream goes on elsewhere, often enough for a p99.

A real Ray cluster, simulated engines over real HTTP, a control plane, a gateway, PostgreSQL, and
clients that stream all the time and never retry. Faults come one after the other: a replica's
process killed (-9), one each six seconds; and, each on a fleet that is whole, a raylet killed; all
processes of a node killed; and, where this machine lets us have network namespaces, a node cut from
the network, which nobody is told of. Then each node is a namespace with an address of its own, and
replicas listen there.

Of each fault: seconds until the last of the streams that it met went on (the end of the longest
silence that begins then), until the first token of the slowest request of the next five seconds,
and until the fleet was whole. Every text is held against that of a calm fleet. Beside it stands the
longest silence of streams that met no fault: what the machine itself does to them.

Examples: python -m bench.failover_times                        # 100, 14, 13 and 13: 24 minutes
          python -m bench.failover_times --times replica=5,network=3 --json times.jsonl
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice, pairwise
from pathlib import Path

import msgspec
import psutil

from argosy.engines.simulated_text import invent, render
from argosy.fleet.messages import Replica
from tests.launchers.machines import Machines, can_be_had
from tests.system.ray_failover.fleet import FLEET_BEGINS, RayFleet, Shape, until
from tests.system.ray_failover.load import Load, Stream

NODES = ("n1", "n2", "n3", "n4")
CHIPS = 4  # of a node: three nodes hold what four do
REPLICAS = 12
CLIENTS = 12
SPARED_S = 62.0  # a replica that lived for less counts as one that crashes again and again
SOON_S = 5.0  # requests that begin so soon after a fault are looked at
_ASKED = (f"Tell me about the number {n}." for n in range(3, 1000))
QUESTIONS = tuple(  # whose answers are long, of a simulated engine too
    islice((q for q in _ASKED if len(invent(render([{"role": "user", "content": q}]))) > 40), 6)
)
AIMS_S = {"replica": 2.0, "raylet": 5.0, "machine": 5.0, "network": 5.0}
# For so long a replica may still speak after the fault: what is on its way, and until its actor
# misses a raylet.
OUTLIVES_S = {"replica": 0.2, "raylet": 1.5, "machine": 0.3, "network": 0.2}
CALM_S = 1.5
WHOLE_S_MAX = 120.0
FLEET = (
    "fleet: times\n"
    + FLEET_BEGINS
    + """\
    nodes: {{max: 4, chips_per_node: 4}}
models: [{{name: {model}}}]
deployments:
  - {{model: {model}, pool: azure-h100, replicas: 12, engine: {engine}}}
tenants: [{{name: acme}}]
"""
)
ENGINES = {
    "simulated": "{{kind: simulated, context_tokens: {tokens}, slots: 8, decode_tokens_per_s: 12}}",
    "llama.cpp": "{{kind: llama.cpp, context_tokens: {tokens}, slots: 1, threads: 1, "
    "prefix_cache: false}}",
}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One that was. Times are of `time.monotonic`."""

    kind: str
    at_s: float
    until_s: float  # of what is looked at
    whole_s: float | None  # None: not within what is looked at
    load_average: float


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What clients saw of one fault."""

    kind: str
    continued: int  # streams that went on elsewhere
    elsewhere_s: float | None  # the last of them
    next_s: float | None  # the slowest first token of the requests soon after
    whole_s: float | None
    load_average: float


class Breaking:
    """The faults upon one fleet. Each returns once the fleet is whole again."""

    def __init__(self, fleet: RayFleet, machines: Machines | None) -> None:
        self.fleet = self._fleet = fleet
        self._machines = machines
        self._born_s: dict[tuple[str, int | None], float] = {}
        self._log: Path | None = None  # of the node that was started last
        self._log_begins = 0
        self._names = {ip: name for name, (ip, *_) in fleet.shape.nodes.items()}

    def replica(self) -> Fault:
        """SIGKILL to an engine's process with a stream, that has lived for long."""
        victim = self._victim()
        assert victim.pid is not None
        kill = psutil.Process(victim.pid).kill
        return self._broken("replica", [victim], kill, whole_s_max=SOON_S)

    def raylet(self) -> Fault:
        """SIGKILL to a raylet."""
        return self._node("raylet", lambda name: self._fleet.cluster.raylet(name).kill())

    def machine(self) -> Fault:
        """SIGKILL to all of a node's processes."""
        return self._node("machine", self._fleet.cluster.kill)

    def network(self) -> Fault:
        """A node cut off."""
        assert self._machines is not None
        return self._node("network", self._machines.cut)

    def _victim(self) -> Replica:
        while True:
            now_s = time.monotonic()
            rows = self._fleet.ready()
            for row in rows:
                self._born_s.setdefault((row.replica.name, row.replica.pid), now_s - SPARED_S)
            busy = [row.replica for row in rows if row.load.requests_in_flight]
            oldest = min(busy, key=lambda one: self._born_s[one.name, one.pid], default=None)
            if oldest is not None and now_s - self._born_s[oldest.name, oldest.pid] >= SPARED_S:
                return oldest
            time.sleep(0.5)

    def _node(self, kind: str, lose: Callable[[str], object]) -> Fault:
        self._wait_whole()
        by_node: dict[str, int] = {}
        while not (rows := [row for row in self._fleet.ready() if row.load.requests_in_flight]):
            time.sleep(0.1)
        for row in rows:
            node = row.replica.node or ""
            by_node[node] = by_node.get(node, 0) + row.load.requests_in_flight
        node = max(by_node, key=lambda one: by_node[one])
        name = self._names[node]
        met = [row.replica for row in rows if row.replica.node == node]
        fault = self._broken(kind, met, lambda: lose(name))
        if kind != "machine":
            self._fleet.cluster.kill(name)
        if kind == "network" and self._machines is not None:
            self._machines.join(name)
        self._start(name)
        return fault

    def _start(self, name: str) -> None:
        self._log = self._fleet.folder / f"{name}.log"
        self._log_begins = self._log.stat().st_size
        self._fleet.start_node(name)

    def _wait_whole(self) -> None:
        """Until the node that was lost last is there again too."""
        fleet = self._fleet
        until(
            lambda: (
                self._log is None
                or b"Ray runtime started" in self._log.read_bytes()[self._log_begins :]
            ),
            WHOLE_S_MAX,
            lambda: fleet.said,
            every_s=0.2,
        )
        until(lambda: _is_whole(fleet, set()), WHOLE_S_MAX, lambda: fleet.said, every_s=0.2)
        time.sleep(CALM_S)

    def _broken(
        self,
        kind: str,
        met: list[Replica],
        do: Callable[[], object],
        *,
        whole_s_max: float = WHOLE_S_MAX,
    ) -> Fault:
        fleet = self._fleet
        gone = {(one.name, one.pid) for one in met}
        at_s = time.monotonic()
        do()
        while not (is_whole := _is_whole(fleet, gone)) and time.monotonic() - at_s < whole_s_max:
            time.sleep(0.2)
        now_s = time.monotonic()
        assert is_whole or whole_s_max < WHOLE_S_MAX, fleet.said
        for row in fleet.ready():
            self._born_s.setdefault((row.replica.name, row.replica.pid), now_s)
        time.sleep(max(CALM_S, SOON_S - (now_s - at_s)))
        return Fault(
            kind=kind,
            at_s=at_s,
            until_s=time.monotonic(),
            whole_s=now_s - at_s if is_whole else None,
            load_average=os.getloadavg()[0],
        )


def _is_whole(fleet: RayFleet, gone: set[tuple[str, int | None]]) -> bool:
    """Without those."""
    rows = fleet.replicas()
    states = [row.state for row in rows]
    return states == ["ready"] * REPLICAS and not gone & {(row.name, row.pid) for row in rows}


def samples(faults: list[Fault], streams: list[Stream], attempts: dict[str, int]) -> list[Sample]:
    """One a fault."""
    return [_sample(fault, streams, attempts) for fault in faults]


def _sample(fault: Fault, streams: list[Stream], attempts: dict[str, int]) -> Sample:
    at_s, outlives_s = fault.at_s, OUTLIVES_S[fault.kind]
    hit = [
        one
        for one in streams
        if one.began_s <= at_s <= one.ended_s and attempts.get(one.request or "", 1) > 1
    ]
    went_on = [
        s for one in hit if (s := one.resumed_after(at_s, outlives_s=outlives_s)) is not None
    ]
    soon = [one for one in streams if at_s < one.began_s < min(fault.until_s, at_s + SOON_S)]
    return Sample(
        kind=fault.kind,
        continued=len(hit),
        elsewhere_s=max(went_on, default=None),
        next_s=max((one.chunks_s[0] - one.began_s for one in soon if one.chunks_s), default=None),
        whole_s=fault.whole_s,
        load_average=fault.load_average,
    )


def quantile(values: list[float], share: float) -> float:
    """The smallest that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]


def as_markdown(found: list[Sample]) -> str:
    """For docs/RAY.md."""
    lines = [
        "| fault | times | streams met | first token elsewhere (s): p50, p95, p99, most | aim (s) "
        "| slowest first token of the next 5 s: p50, p95, p99 | whole again: p50, p99 | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds = [kind for kind in AIMS_S if any(one.kind == kind for one in found)]
    for kind in kinds:
        mine = [one for one in found if one.kind == kind]
        elsewhere = [one.elsewhere_s for one in mine if one.elsewhere_s is not None]
        next_s = [one.next_s for one in mine if one.next_s is not None]
        whole = [one.whole_s for one in mine if one.whole_s is not None]
        loads = [one.load_average for one in mine]
        lines.append(
            f"| {kind} | {len(elsewhere)} of {len(mine)} | {sum(one.continued for one in mine)} "
            f"| {_at(elsewhere, 0.5, 0.95, 0.99, 1.0)} | {AIMS_S[kind]:g} "
            f"| {_at(next_s, 0.5, 0.95, 0.99)} | {_at(whole, 0.5, 0.99)} "
            f"| {min(loads):.1f} to {max(loads):.1f} |"
        )
    return "\n".join(lines) + "\n"


def _at(values: list[float], *shares: float) -> str:
    return ", ".join(f"{quantile(values, share):.2f}" for share in shares) if values else "-"


@contextmanager
def running(engine: str) -> Iterator[Breaking]:
    """A fleet, on machines of its own where they can be had."""
    machines = Machines(NODES) if can_be_had() else None
    labels = {"pool": "azure-h100"}
    nodes = {
        name: (
            machines.address_of(name) if machines is not None else f"127.0.0.{number}",
            f"--num-gpus={CHIPS}",
            labels,
        )
        for number, name in enumerate(NODES, 3)
    }
    shape = Shape(
        nodes=nodes,
        on={name: machines.on(name) for name in NODES} if machines is not None else {},
        head=machines.address if machines is not None else "127.0.0.2",
        fleet=FLEET,
        engine=ENGINES[engine],
        replicas=REPLICAS,
        controls=1,
    )
    try:
        fleet = RayFleet(shape)
        try:
            yield Breaking(fleet, machines)
        finally:
            fleet.close()
    finally:
        if machines is not None:
            machines.close()


def order(times: dict[str, int]) -> list[str]:
    """All of them, each kind spread over the whole run."""
    places = [((at + 0.5) / n, kind) for kind, n in times.items() for at in range(n)]
    return [kind for _, kind in sorted(places)]


def run(breaking: Breaking, load: Load, kinds: list[str]) -> list[Fault]:
    """One by one; ends early, with what there is, where the fleet does not get over one."""
    faults: list[Fault] = []
    load.start()
    time.sleep(CALM_S)
    try:
        for number, kind in enumerate(kinds, 1):
            fault = getattr(breaking, kind)()
            faults.append(fault)
            whole = f"whole after {fault.whole_s:.1f} s" if fault.whole_s else "not whole yet"
            sys.stderr.write(
                f"{number}/{len(kinds)} {kind}: {whole}; load {fault.load_average:.1f}\n"
            )
    except (AssertionError, KeyboardInterrupt) as error:
        sys.stderr.write(f"ends after {len(faults)} faults: {error!r}\n")
    finally:
        load.end()
    time.sleep(2.0)  # until the last records are written
    return faults


def go_first() -> None:
    """Our processes before those of others, from now on: a machine that is shared, less so."""

    def forever() -> None:
        done: set[int] = set()
        while True:
            for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
                with suppress(OSError, psutil.Error):
                    session = os.getsid(process.pid)
                    if session not in done:
                        Path(f"/proc/{process.pid}/autogroup").write_text("-10")
                        done.add(session)
            time.sleep(0.3)

    threading.Thread(target=forever, daemon=True).start()


def read_times(text: str) -> dict[str, int]:
    """As `--times` has it."""
    return {kind: int(n) for kind, _, n in (one.partition("=") for one in text.split(","))}


def calm_silences(streams: list[Stream], attempts: dict[str, int]) -> list[float]:
    """The longest of each stream that met no fault, its first token's included."""
    met_none = [one for one in streams if attempts.get(one.request or "", 1) == 1]
    return [
        max(later - one for one, later in pairwise([stream.began_s, *stream.chunks_s]))
        for stream in met_none
        if stream.chunks_s
    ]


def main() -> None:
    """The command. Exit status 1: a stream failed, or a text was another, or it ended early."""
    parser = argparse.ArgumentParser(prog="python -m bench.failover_times")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="simulated")
    parser.add_argument(
        "--times", type=read_times, default="replica=100,raylet=14,machine=13,network=13"
    )
    parser.add_argument("--json", type=Path, help="write the samples there, one a line")
    parser.add_argument(
        "--first", action="store_true", help="its processes go before others' (Linux, root)"
    )
    options = parser.parse_args()
    if options.first:
        go_first()
    if unknown := set(options.times) - set(AIMS_S):
        parser.error(f"no fault {', '.join(unknown)}; there are {', '.join(AIMS_S)}")
    if not can_be_had() and options.times.pop("network", 0):
        sys.stderr.write("no network namespaces here (root and iproute2): no node is cut off\n")
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background the first may be ignored
        signal.signal(number, signal.default_int_handler)
    kinds = order(options.times)
    with running(options.engine) as breaking:
        load = Load(breaking.fleet, clients=CLIENTS, questions=QUESTIONS)
        faults = run(breaking, load, kinds)
        attempts = {request: one.attempts for request, one in breaking.fleet.usage().items()}
    found = samples(faults, load.streams, attempts)
    if options.json is not None:
        options.json.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in found))
    failed = [one.failure for one in load.streams if one.failure is not None]
    other = sum(
        one.failure is None and one.text != load.texts[one.question] for one in load.streams
    )
    print(as_markdown(found))
    print(f"{len(load.streams)} streams, {len(failed)} failed, {other} with another text")
    silences = calm_silences(load.streams, attempts)
    print(f"longest silence of a stream without a fault (s): {_at(silences, 0.5, 0.95, 0.99, 1.0)}")
    for failure in failed[:20]:
        sys.stderr.write(f"{failure}\n")
    sys.exit(bool(failed or other or len(faults) < len(kinds)))


if __name__ == "__main__":
    main()
