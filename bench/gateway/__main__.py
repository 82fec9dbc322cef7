"""The gateway beside its peers, on this machine.

    python -m bench.gateway
    python -m bench.gateway --peers argosy vllm-router-rr --scenarios whole stream --seconds 2

Tables go to stdout, progress to stderr. The load goes to 127.0.0.1 only and ends by itself.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.gateway import peers, processes, scenarios
from bench.gateway.measure import Target, measure
from bench.gateway.report import Report


def main() -> None:
    options = _options()
    if not sys.platform.startswith("linux"):
        raise SystemExit("bench.gateway: it pins processes and reads /proc: Linux only")
    # Both end what was started. Not by an exception of the handler's own: a loop may swallow it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    cores = processes.share_cores()
    os.sched_setaffinity(0, {cores.load})
    asked = [scenarios.BY_NAME[name] for name in options.scenarios]
    about = [f"{time.strftime('%Y-%m-%d %H:%M')}, {_machine()}", f"load before: {_load()}"]
    with running(options.peers, cores) as (targets, versions, failed):
        about[1:1] = [f"versions: {', '.join(versions)}"]
        samples = measure(
            targets, asked, rounds=options.rounds, window_s=options.seconds, core=cores.gateway
        )
    about.append(f"load after: {_load()}")
    about.append(f"{options.rounds} rounds, windows of {options.seconds:g} s")
    report = Report(samples, [t.name for t in targets], is_markdown=options.markdown)
    for scenario in asked:
        report.scenario(scenario)
    report.sizes()
    report.aims()
    bullet = "- " if options.markdown else ""
    about += [f"NOT MEASURED: {name}: {why}" for name, why in failed.items()]
    print("\n".join([*(bullet + line for line in about), *report.lines]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gateway",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    names, kinds = list(peers.BY_NAME), list(scenarios.BY_NAME)
    add("--peers", nargs="+", choices=names, default=names, help="whom to measure (all)")
    add("--scenarios", nargs="+", choices=kinds, default=kinds, help="what to ask (all)")
    add("--seconds", type=float, default=4.0, help="of one window (4)")
    add("--rounds", type=int, default=3, help="of all scenarios and peers (3)")
    add("--markdown", action="store_true", help="tables for a page")
    return parser.parse_args()


@contextmanager
def running(
    names: Sequence[str], cores: processes.Cores
) -> Iterator[tuple[list[Target], list[str], dict[str, str]]]:
    """The upstream and those peers: targets, versions, and why some are missing."""
    versions, failed = [f"python {platform.python_version()}"], {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="argosy-bench-")))
        replicas = _upstream(stack, folder, cores)
        targets = [Target(name="direct", port=replicas[0])]
        for name in names:
            peer = peers.BY_NAME[name]
            print(f"starting {name}", file=sys.stderr)
            try:
                one = peers.start(peer, folder=folder / name, replicas=replicas, core=cores.gateway)
            except peers.PeerFailedError as error:
                failed[name] = str(error)
                print(f"  {error}", file=sys.stderr)
                continue
            stack.callback(processes.stop, one.process)
            targets.append(Target.of(one))
            versions.append(peers.version(peer, peers.install(peer)))
        yield targets, list(dict.fromkeys(versions)), failed


def _upstream(stack: ExitStack, folder: Path, cores: processes.Cores) -> tuple[int, int]:
    process = processes.start(
        [sys.executable, "-m", "bench.gateway.upstream"],
        core=cores.upstream,
        log=folder / "upstream.log",
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    stack.callback(processes.stop, process)
    assert process.stdout is not None
    line = process.stdout.readline().split()
    if len(line) != 2:
        raise SystemExit(f"the upstream did not start: {(folder / 'upstream.log').read_text()}")
    return int(line[0]), int(line[1])


def _machine() -> str:
    said = Path("/proc/cpuinfo").read_text()
    model = next((ln.split(": ")[1] for ln in said.splitlines() if ln.startswith("model name")), "")
    return f"{os.cpu_count()} cores {model}, Linux {platform.release()}"


def _load() -> str:
    return "load average " + " ".join(Path("/proc/loadavg").read_text().split()[:3])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("bench.gateway: stopped before its end")
