"""Which address a replica's program binds, and that it says so."""

from pathlib import Path
from urllib.parse import urlsplit

import psutil
from real_replica import MODEL, running

from argosy.engines.llama_cpp import LlamaCpp
from argosy.engines.port import Place
from argosy.engines.replica_process import url_of
from argosy.engines.simulated import Simulated
from argosy.fleet.config import LlamaCppEngine, SimulatedEngine
from argosy.fleet.messages import Command

ELSEWHERE = Place(host="127.0.0.9")


def binds(command: Command | None) -> tuple[set[str], str | None]:
    """The addresses where it listens, and the one that it says."""
    assert command is not None
    with running(command) as (process, url):
        sockets = psutil.Process(process.pid).net_connections("tcp")
        return {one.laddr.ip for one in sockets if one.status == "LISTEN"}, urlsplit(url).hostname


def test_a_simulated_replica_binds_the_address_that_it_is_told_and_no_other():
    config = SimulatedEngine()
    command = Simulated().command(config, model=MODEL, weights=None, threads=1, place=ELSEWHERE)
    assert binds(command) == ({"127.0.0.9"}, "127.0.0.9")
    here = Simulated().command(config, model=MODEL, weights=None, threads=1)
    assert binds(here) == ({"127.0.0.1"}, "127.0.0.1")


def test_a_llama_cpp_replica_binds_the_address_that_it_is_told_and_no_other(weights: Path):
    config = LlamaCppEngine(context_tokens=256, slots=1)
    command = LlamaCpp().command(config, model=MODEL, weights=weights, threads=1, place=ELSEWHERE)
    assert binds(command) == ({"127.0.0.9"}, "127.0.0.9")


def test_an_address_of_ipv6_stands_in_brackets():
    assert url_of("10.0.0.9", 80) == "http://10.0.0.9:80"
    assert url_of("fd00::2", 80) == "http://[fd00::2]:80"
