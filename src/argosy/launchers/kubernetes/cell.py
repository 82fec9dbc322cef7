"""What of a fleet's pool its objects depend on: one small value, made once."""

import msgspec

from argosy.fleet.catalogue import chip
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.launchers import KubernetesLauncher

_FILE = "file:"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A pool on Kubernetes, as its objects and its launcher need to know it."""

    fleet: str
    pool: str
    launcher: KubernetesLauncher
    region: str | None = None
    chip: str | None = None  # as the catalogue names it; None: replicas run on processors
    maker: str | None = None
    chips_per_node: int = 1
    weights: dict[str, str] = {}  # by model: file:PATH on the nodes; none: the engine has them

    def weights_path(self, model: str) -> str | None:
        """Where the weights are on each node; None: the engine knows the model by its name."""
        weights = self.weights.get(model)
        if weights is None or not weights.startswith(_FILE):
            return None
        return weights.removeprefix(_FILE)

    def model_path(self, model: str) -> str:
        """What the engine is told to load."""
        return self.weights_path(model) or model


def cell_of(fleet: Fleet, pool: Pool) -> Cell:
    """Of a checked fleet; `pool.launcher` is a Kubernetes one."""
    assert isinstance(pool.launcher, KubernetesLauncher)
    return Cell(
        fleet=fleet.fleet,
        pool=pool.name,
        launcher=pool.launcher,
        region=pool.region,
        chip=pool.chip,
        maker=None if pool.chip is None else chip(pool.chip).maker,
        chips_per_node=pool.nodes.chips_per_node,
        weights={model.name: model.weights for model in fleet.models if model.weights is not None},
    )
