"""A replica on probation or in quarantine gets its share of the requests, and no more."""

import asyncio

from msgspec.structs import replace
from raw_client import BEARER
from running_gateway import House, eventually, run, running
from upstream import streams_forever

BODY = {"model": "four", "stream": True, "messages": [{"role": "user", "content": "hello"}]}


def _share(house: House, name: str, share: float) -> None:
    """What the control plane says of it now."""
    house.replicas[name] = replace(house.replicas[name], share=share)
    house._push()


def _in_flight(house: House) -> list[int]:
    return [
        row.load.requests_in_flight
        for row in house.gateway.status().replicas
        if row.replica.model == "four"
    ]


async def _ask(house: House, times: int) -> list[asyncio.Task[object]]:
    """One after the other, each on its way before the next."""
    before = sum(_in_flight(house))
    tasks = []
    for n in range(times):
        client = await house.client()
        tasks.append(asyncio.create_task(client.ask(body=BODY, **BEARER)))
        await eventually(lambda n=n: sum(_in_flight(house)) == before + n + 1)
    return tasks


async def _end(house: House, tasks: list[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await house.close_clients()
    await eventually(lambda: sum(_in_flight(house)) == 0)


def test_one_on_probation_has_a_quarter_of_what_its_peer_has_and_all_when_it_is_over():
    async def test():
        async with running(routing="predicted") as house:
            for _ in range(2):
                await house.replica(streams_forever, model="four")
            on = max(house.replicas)
            _share(house, on, 0.25)
            tasks = await _ask(house, 5)
            assert _in_flight(house) == [4, 1]
            await _end(house, tasks)
            _share(house, on, 1.0)
            tasks = await _ask(house, 6)
            assert _in_flight(house) == [3, 3]
            await _end(house, tasks)

    run(test())


def test_where_nothing_else_is_there_one_on_probation_has_it_all():
    async def test():
        async with running() as house:
            await house.replica(streams_forever, model="four")
            _share(house, max(house.replicas), 0.25)
            tasks = await _ask(house, 4)
            assert _in_flight(house) == [4]
            await _end(house, tasks)

    run(test())
