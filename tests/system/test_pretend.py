"""A fleet of four clouds on this machine: one is lost under load, and comes back."""

import asyncio
import threading
from pathlib import Path

import httpx
from fleet_process import FleetProcess, run_argosy, wait_until
from streams import Ended, judged

EXAMPLE = Path(__file__).parents[2] / "examples" / "pretend.yaml"
MODELS = ("large", "small", "reasoning")
LOST = ("azure-h100", "azure-maia")


async def stream_once(client: httpx.AsyncClient, model: str, number: int) -> Ended:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Count to {number}."}],
        "stream": True,
    }
    request = None
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            request = response.headers.get("x-request-id")
            if response.status_code != 200:
                return Ended("refused", False, (await response.aread()).decode(), request)
            lines = [line async for line in response.aiter_lines()]
        events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    except httpx.HTTPError as error:
        return Ended("lost", False, repr(error), request)
    return judged(events, request)


def stream_until(fleet: FleetProcess, over: threading.Event, ended: list[Ended]) -> None:
    """Two clients a model, each one request after the other."""

    async def repeat(client: httpx.AsyncClient, model: str) -> None:
        while not over.is_set():
            ended.append(await stream_once(client, model, len(ended)))

    async def main() -> None:
        async with httpx.AsyncClient(
            base_url=fleet.url,
            headers={"authorization": f"Bearer {fleet.key}"},
            timeout=30.0,
            trust_env=False,
        ) as client:
            await asyncio.gather(*(repeat(client, model) for model in 2 * MODELS))

    asyncio.run(main())


def states(fleet: FleetProcess, *pools: str) -> set[str]:
    return {row.replica.state for row in fleet.replicas() if row.replica.pool in pools}


def pretend(fleet: FleetProcess, word: str, domain: str) -> str:
    said = run_argosy("pretend", word, domain, "--state", fleet.state)
    return said.stdout or said.stderr


def test_a_cloud_is_lost_under_load_and_comes_back_and_no_client_notices(start_fleet):
    fleet = start_fleet(EXAMPLE, "--pretend").wait_ready()
    assert "All 7 replicas are simulated" in fleet.out
    over, ended = threading.Event(), []
    clients = threading.Thread(target=stream_until, args=(fleet, over, ended))
    clients.start()
    try:
        wait_until(lambda: len(ended) > 20, 30, fleet)
        assert "azure is lost: pools azure-h100, azure-maia; 3 replicas" in pretend(
            fleet, "lose", "azure"
        )
        wait_until(lambda: "ready" not in states(fleet, *LOST), 30, fleet)
        applied = run_argosy("apply", "--state", fleet.state)  # it pretends on
        assert applied.returncode == 0, applied.stderr
        many = len(ended)
        wait_until(lambda: len(ended) > many + 20, 30, fleet)
        assert "ready" not in states(fleet, *LOST)
        where = {row.replica.pool for row in fleet.replicas() if row.replica.model == "reasoning"}
        assert "own-mi300x" not in where  # it may stay in the US alone
        pretend(fleet, "back", "azure")
        wait_until(lambda: states(fleet, *LOST) == {"ready"}, 40, fleet)
        log = run_argosy("events", "azure", "--state", fleet.state).stdout
        assert "lose       azure  pretended: pools azure-h100, azure-maia; 3 replicas" in log
        assert "back       azure  pools azure-h100, azure-maia can be started on" in log
    finally:
        over.set()
        clients.join(60)
    assert {one.end for one in ended} == {"whole"}, [one for one in ended if one.end != "whole"]
    assert fleet.stop() == 0


def test_a_fleet_that_is_no_pretence_loses_nothing_at_a_word(start_fleet):
    fleet = start_fleet(EXAMPLE.with_name("simulated.yaml")).wait_welcome()
    said = run_argosy("pretend", "lose", "local", "--state", fleet.state)
    assert said.returncode == 1
    assert "no pretence" in said.stderr
    assert "argosy up --pretend" in said.stderr
    refused = run_argosy("up", EXAMPLE, "--replicas", "2", "--state", fleet.state.parent / "other")
    assert refused.returncode == 1
    assert "--replicas is for --pretend" in refused.stderr
