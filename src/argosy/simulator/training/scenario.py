"""What is simulated of a training run, and what came of it."""

import msgspec

from argosy.policies.elasticity import ElasticitySettings


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one kind in one place: an island, or a share of a run that runs as a whole."""

    name: str
    nodes: int  # that train
    spares: int = 0  # that stand by
    tokens_per_s: float  # of all its nodes together
    faults_per_node_day: float  # of nodes that train; independent, at a constant rate
    repair_s: float = 0.0  # mean, exponential; 0: another node is there at once


class Outages(msgspec.Struct, frozen=True, kw_only=True):
    """A region or cloud that goes as one, now and then."""

    name: str
    parts: tuple[str, ...]
    every_s: float  # mean, exponential
    for_s: float  # mean, exponential


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A run, in virtual time; every second is counted, from the first step on."""

    parts: tuple[Part, ...]
    until_s: float
    restart_s: float  # from a fault to the first new step: noticed, replaced, loaded
    checkpoint_cost_s: float  # training stands still for one
    mttf_s_believed: float = 86_400.0  # of all parts together, before anything has failed
    outages: tuple[Outages, ...] = ()
    elasticity: ElasticitySettings = ElasticitySettings()
    step_s: float = 10.0  # of an inner step on an island of mean speed
    send_s: float = 0.0  # from a snapshot to its delta at the syncer
    lease_s: float = 10.0  # a silent island is dead after it
    syncer_faults_per_day: float = 0.0
    syncer_restart_s: float = 5.0
    seed: int = 0


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. The shares are of tokens that could have been; they sum to 1."""

    goodput: float  # trained on, and in the parameters
    lost_share: float  # trained on, and lost with a fault
    down_share: float  # of nodes that were away or starting, and all that waited for them
    stall_share: float  # checkpoints; islands that waited for the syncer
    faults: int
    rounds: int  # closed; 0 where there are none
