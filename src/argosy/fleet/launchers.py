"""How replicas are started on a pool: the table `launcher`, one Struct a kind."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from argosy.fleet.fields import Config, Name, PositiveInt


class LocalLauncher(Config, frozen=True, kw_only=True, tag_field="kind", tag="local"):
    """Replicas are processes of this machine."""


class Quota(Config, frozen=True, kw_only=True):
    """What an endpoint takes in any minute: the gateway sends no more, so it need not refuse."""

    requests_per_min: Annotated[
        PositiveInt | None, Meta(description="Requests; unset: as many as come.")
    ] = None
    tokens_per_min: Annotated[
        PositiveInt | None, Meta(description="Prompt and answer tokens together; unset: any.")
    ] = None


class EndpointLauncher(Config, frozen=True, kw_only=True, tag_field="kind", tag="endpoint"):
    """Nothing is started: the pool is a URL that speaks the OpenAI API, a vLLM server say."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^/\s]+(/[^\s]*)?(?!\n)$",
            description="Where the API is, e.g. http://127.0.0.1:8001/v1",
        ),
    ]
    key_env: Annotated[
        str | None,
        Meta(description="The environment variable that holds the endpoint's key, never the key."),
    ] = None
    quota: Annotated[
        Quota | None,
        Meta(description="What it takes in a minute, of each gateway host; unset: what it says."),
    ] = None


class PlannedLauncher(Config, frozen=True, kw_only=True, tag_field="kind", tag="planned"):
    """Nothing is started: the pool is known to `argosy simulate` alone, on paper."""


class RayLauncher(Config, frozen=True, kw_only=True, tag_field="kind", tag="ray"):
    """Replicas are actors of a Ray cluster, one cluster a pool or a region."""

    address: Annotated[
        str,
        Meta(
            pattern=r"^[^\s:/]+:[0-9]{1,5}(?!\n)$",
            description="HOST:PORT of the cluster's head (its GCS), e.g. head.example:6379",
        ),
    ]
    labels: Annotated[
        dict[str, str],
        Meta(description="Labels that a node of this pool bears, e.g. argosy-pool: gcp-v6e"),
    ] = msgspec.field(default_factory=dict[str, str])
    resource: Annotated[
        str | None,
        Meta(
            description="Ray's resource of the chips: GPU, TPU, neuron_cores or a custom one; "
            "unset: by the chip's maker."
        ),
    ] = None
    python: Annotated[
        str | None,
        Meta(description="The Python on the nodes that has Argosy; unset: the one that runs this."),
    ] = None


class KubernetesLauncher(Config, frozen=True, kw_only=True, tag_field="kind", tag="kubernetes"):
    """Replicas are Deployments, or LeaderWorkerSets where one spans nodes, in one namespace."""

    context: Annotated[
        str | None, Meta(description="Of the kubeconfig; unset: the current one, or in-cluster.")
    ] = None
    namespace: Annotated[Name, Meta(description="Where the objects live.")] = "argosy"
    devices: Annotated[
        Literal["plugin", "dra"],
        Meta(description="How chips are asked for; a node must not offer both ways."),
    ] = "plugin"
    image: Annotated[
        str | None, Meta(description="Of the engine; unset: the engine's own for the maker.")
    ] = None
    node_selector: Annotated[
        dict[str, str], Meta(description="Labels of this pool's nodes, beside the maker's.")
    ] = msgspec.field(default_factory=dict[str, str])
    port: Annotated[PositiveInt, Meta(description="Where replicas listen in their pods.")] = 8000


class SkypilotLauncher(Config, frozen=True, kw_only=True, tag_field="kind", tag="skypilot"):
    """Replicas are machines that a SkyPilot API server rents: one cluster of SkyPilot's each."""

    api: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^/\s]+(/[^\s]*)?(?!\n)$",
            description="Where SkyPilot's API server is, e.g. http://127.0.0.1:46580",
        ),
    ]
    token_env: Annotated[
        str | None,
        Meta(
            description="The environment variable that holds a service account's token for it, "
            "never the token."
        ),
    ] = None
    key_env: Annotated[
        str | None,
        Meta(
            description="The environment variable that holds the key which replicas ask for: "
            "rented machines have public addresses."
        ),
    ] = None
    image: Annotated[
        str | None,
        Meta(
            description="A container image that has the engine; unset: the engine is installed on "
            "the machine's own image."
        ),
    ] = None
    accelerators: Annotated[
        str | None,
        Meta(description="What SkyPilot calls the chip, e.g. H100; unset: by the chip."),
    ] = None
    port: Annotated[
        int, Meta(ge=1, le=65535, description="Where replicas listen on their machines.")
    ] = 8000


Launcher = (
    LocalLauncher
    | EndpointLauncher
    | PlannedLauncher
    | RayLauncher
    | KubernetesLauncher
    | SkypilotLauncher
)


def is_on_chips(launcher: Launcher) -> bool:
    """Whether what runs there is known by its chip: on paper, or on nodes that are not ours."""
    return isinstance(
        launcher, PlannedLauncher | RayLauncher | KubernetesLauncher | SkypilotLauncher
    )
