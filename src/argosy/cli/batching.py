"""The batches of one run of `argosy up`: what answers about them, and what sends their items.

Wires store, API and runner. Of several processes on one state folder one alone may `start`: the
runner sends what has no result, and a second would send it too.
"""

import random
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from sqlalchemy import Engine

from argosy.cli.state import UP_KEY_NAME, now_s
from argosy.fleet.messages import Key
from argosy.gateway.batches.api import BatchApi
from argosy.gateway.batches.item_client import HttpItemClient
from argosy.gateway.batches.runner import BatchRunner, RunnerWiring
from argosy.store.batch_work import BatchWork
from argosy.store.batches import Batches
from argosy.store.files import Files
from argosy.store.keys import KeyRing, list_keys

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # what is bound to all


class Batching:
    """`api` and `find_key_by_id` are for the gateway; `up_key` is the key that this run made.

    `start` once the gateway's URL is known, `stop` before it drains.
    """

    def __init__(self, store: Engine, ring: KeyRing, *, up_key: Key) -> None:
        self.find_key_by_id = owner_finder(store, ring, up_key)
        self._files, self._desk = Files(store), BatchWork(store)
        self._runner: BatchRunner | None = None
        self._client: HttpItemClient | None = None
        self.api = BatchApi(
            files=self._files, batches=Batches(store), unix_time_s=now_s, changed=self._wake
        )

    def start(self, url: str, *, operator_token: str, tls: ssl.SSLContext | None = None) -> None:
        """Send what has no result yet, of earlier runs too, to the gateway at `url`."""
        self._client = HttpItemClient(own_url(url), operator_token=operator_token, tls=tls)
        self._runner = BatchRunner(
            RunnerWiring(
                files=self._files,
                desk=self._desk,
                client=self._client,
                unix_time_s=now_s,
                chance=random.Random().random,
            )
        )
        self._runner.start()

    async def stop(self) -> None:
        """Let go of what is under way: the next run sends it again."""
        if self._runner is not None and self._client is not None:
            await self._runner.stop()
            self._client.close()

    def _wake(self) -> None:
        if self._runner is not None:  # another process's looks once a second
            self._runner.wake()


def own_url(url: str) -> str:
    """Where a gateway that listens at `url` is found from its own machine."""
    host = _LOOPBACK.get(urlsplit(url).hostname or "")
    return url if host is None else f"{urlsplit(url).scheme}://{host}:{urlsplit(url).port}"


def owner_finder(store: Engine, ring: KeyRing, up_key: Key) -> Callable[[str], Key | None]:
    """Finds the live key that a batch was made with.

    Each run revokes the key that the run before made, and the batches of that one must survive
    it: their items go on with `up_key`, as long as it is the same tenant's. One without an id is
    nobody's: then batches end with their keys.
    """
    if not up_key.id:
        return ring.find_by_id
    earlier = {
        key.id
        for key in list_keys(store, include_revoked=True)
        if key.name == UP_KEY_NAME and key.tenant == up_key.tenant
    }
    return lambda key: ring.find_by_id(up_key.id if key in earlier else key)
