"""A process that does nothing but run the batches of a store: `batch_process.py STORE URL`.

It says "running" and ends when no batch is open. Made to be killed.
"""

import asyncio
import random
import sys
import time
from pathlib import Path

from argosy.gateway.batches.item_client import HttpItemClient
from argosy.gateway.batches.runner import BatchRunner, RunnerWiring
from argosy.store.batch_work import BatchWork
from argosy.store.files import Files
from argosy.store.schema import open_store


async def main(path: Path, url: str) -> None:
    """Run them."""
    store = open_store(path)
    desk = BatchWork(store)
    client = HttpItemClient(url, operator_token="operator-secret")
    runner = BatchRunner(
        RunnerWiring(
            files=Files(store),
            desk=desk,
            client=client,
            unix_time_s=time.time,
            chance=random.random,
        )
    )
    runner.start()
    print("running", flush=True)  # noqa: T201
    while desk.list_open():
        await asyncio.sleep(0.02)
    await runner.stop()
    client.close()
    store.dispose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
