"""What our objects are called: names, labels and annotations, from any name of a fleet file.

Kubernetes allows less in a name than a fleet file does; what does not fit is shortened and told
from its like by a hash. The names as they were written are in the annotations.
"""

import hashlib
import re

FLEET = "argosy.dev/fleet"  # label, and the full name as annotation
POOL = "argosy.dev/pool"  # both
REPLICA = "argosy.dev/replica"  # both
GENERATION = "argosy.dev/generation"  # annotation
MODEL = "argosy.dev/model"  # annotation
DEPLOYMENT = "argosy.dev/deployment"  # annotation
CORDONED_BY = "argosy.dev/cordoned-by"  # annotation of a node: the fleet
CORDONED_WHY = "argosy.dev/cordoned-why"  # annotation of a node
# LeaderWorkerSet's own: api/leaderworkerset/v1/leaderworkerset_types.go of kubernetes-sigs/lws
WORKER_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"

# A LeaderWorkerSet's pods are called NAME-0-12, and a StatefulSet adds an 11-character hash to
# its name in a label of 63: 45 leaves room for both.
_NAME_LENGTH_MAX = 45
_LABEL_LENGTH_MAX = 63
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")  # RFC 1123
_HASH_LENGTH = 8


def object_name(fleet: str, replica: str) -> str:
    """The name of a replica's objects, alike whenever it is asked for; unique in its namespace."""
    return _fitted(f"{fleet}-{replica}", of=f"{fleet}\n{replica}", length=_NAME_LENGTH_MAX)


def label_value(name: str) -> str:
    """The name as the value of a label."""
    if len(name) <= _LABEL_LENGTH_MAX and _LABEL.fullmatch(name):
        return name
    return _fitted(name, of=name, length=_LABEL_LENGTH_MAX)


def is_dns_label(name: str) -> bool:
    """Whether a namespace, say, may be called so."""
    return len(name) <= _LABEL_LENGTH_MAX and _DNS_LABEL.fullmatch(name) is not None


def selector(labels: dict[str, str]) -> str:
    """Labels as the API's `labelSelector`."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _fitted(text: str, *, of: str, length: int) -> str:
    """`text` in the letters of a DNS label, with a hash of `of`."""
    digest = hashlib.sha256(of.encode()).hexdigest()[:_HASH_LENGTH]
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    slug = slug if slug[:1].isalpha() else f"r-{slug}"  # services want a letter first
    return f"{slug[: length - _HASH_LENGTH - 1].rstrip('-')}-{digest}"
