"""What the gateway is given by whoever starts it: functions, not rooms."""

import random
import ssl
from collections.abc import Callable, Mapping

import msgspec

from argosy.fleet.messages import Key, Usage
from argosy.gateway.batches.api import BatchApi
from argosy.gateway.ledger import Ledger
from argosy.gateway.quotas import Quotas
from argosy.gateway.together import Collect


def _no_key(_: str) -> Key | None:
    return None


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is given by whoever starts it."""

    find_key: Callable[[str], Key | None]
    record: Callable[[Usage], None]  # must not block
    usage_unwritten: Callable[[], int]
    usage_is_overloaded: Callable[[], bool]
    unix_time_s: Callable[[], float]
    operator_token: str  # opens the status page, and chats as `operator`
    upstream_keys: Mapping[str, str] = {}  # pool name to the bearer key of its endpoint
    chance: random.Random  # jitters retries
    ledger: Ledger | None = None  # None: no tenant has a budget
    quotas: Quotas | None = None  # None: no pool has one
    find_key_by_id: Callable[[str], Key | None] = _no_key  # of the owner of a batch
    batches: BatchApi | None = None  # None: their paths are unknown
    process: int = 0  # its number among the `processes` of the fleet file
    tls: ssl.SSLContext | None = None  # None: in the clear
    collect: Collect | None = None  # asks all processes for the pages; None: there is but this one
