"""What a person writes in `RUN.yaml`, as Structs: one training run; the defaults live here alone.

Structure and single values are checked by these types; what relates two places of the file is
checked by `rules_runs.py`. Tokens are counted in blocks of `context_tokens`: the position of a
block in the run decides which text it is and which learning rate it gets, so that any islands at
any speed train the same run.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from argosy.fleet.fields import Config, Name, PositiveFloat, PositiveInt, Share

NonNegativeFloat = Annotated[float, Meta(ge=0)]


class NewModel(Config, frozen=True, kw_only=True, tag="llama", tag_field="kind"):
    """A decoder-only transformer of the Llama family, from random weights."""

    layers: PositiveInt
    hidden: Annotated[PositiveInt, Meta(description="Width of the residual stream.")]
    heads: PositiveInt
    kv_heads: PositiveInt
    mlp: Annotated[PositiveInt, Meta(description="Width inside the gated MLP.")]
    rope_theta: PositiveFloat = 10_000.0
    norm_epsilon: PositiveFloat = 1e-5
    tie_embeddings: bool = True


class PretrainedModel(Config, frozen=True, kw_only=True, tag="pretrained", tag_field="kind"):
    """A causal language model in Hugging Face's format."""

    path: Annotated[
        str, Meta(min_length=1, description="A folder with config.json, *.safetensors.")
    ]


Model = NewModel | PretrainedModel


class Data(Config, frozen=True, kw_only=True):
    """What is trained on: a folder that `argosy data prepare` made."""

    path: Annotated[str, Meta(min_length=1, description="Folder or fsspec URL with manifest.json.")]
    recipe: Annotated[
        str | None,
        Meta(description="Recipe of argosy data prepare: makes path where it is missing."),
    ] = None
    validation_blocks: Annotated[
        int, Meta(ge=0, description="Blocks kept back, at the end, and evaluated each round.")
    ] = 64
    is_document_masked: Annotated[
        bool, Meta(description="Attention does not look past the end of a document in its block.")
    ] = False


class Optimizer(Config, frozen=True, kw_only=True):
    """AdamW inside an island, and its learning rate over the tokens of the whole run."""

    lr: PositiveFloat = 1e-3
    beta1: Share = 0.9
    beta2: Share = 0.99  # 0.95 is of larger batches: docs/TRAINING_PARITY.md
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.1
    clip_norm: Annotated[PositiveFloat, Meta(description="Gradients are scaled down to it.")] = 1.0
    schedule: Annotated[
        Literal["cosine", "wsd", "constant"],
        Meta(description="wsd: warm up, stay, decay over the last share of the tokens."),
    ] = "cosine"
    warmup_share: Annotated[float, Meta(ge=0, lt=1, description="Of the run's tokens.")] = 0.02
    decay_share: Annotated[float, Meta(ge=0, le=1, description="Of the run's tokens; wsd.")] = 0.2
    lr_end_share: Annotated[float, Meta(ge=0, le=1, description="Of lr, at the end.")] = 0.1


class Outer(Config, frozen=True, kw_only=True):
    """What happens between islands (the DiLoCo family)."""

    inner_steps: Annotated[
        PositiveInt, Meta(description="Steps of an island of mean speed between two deltas.")
    ] = 30
    lr: PositiveFloat = 1.0  # what lost least: docs/TRAINING_PARITY.md
    momentum: Annotated[
        Annotated[float, Meta(ge=0, lt=1)] | None,
        Meta(description="Nesterov's. None: 1 - 1 / sqrt(islands that live)."),
    ] = None
    bits: Annotated[
        Literal[4, 8, 32], Meta(description="Of each value of a delta; 32: plain fp32.")
    ] = 4
    fragment_bytes_max: Annotated[
        PositiveInt, Meta(description="fp32 bytes of one fragment: the unit of transfer.")
    ] = 16 * 2**20
    quorum: Annotated[
        PositiveInt, Meta(description="Islands without whose delta no round closes.")
    ] = 1
    grace_s_max: Annotated[
        NonNegativeFloat, Meta(description="Seconds that a round with quorum waits for the others.")
    ] = 30.0
    staleness_max: Annotated[
        int, Meta(ge=0, description="Rounds that a delta's base may be behind; else it is refused.")
    ] = 3
    lease_s: Annotated[
        PositiveFloat, Meta(description="Silence after which an island's tokens go to others.")
    ] = 10.0


class Island(Config, frozen=True, kw_only=True):
    """Chips of one kind that train together."""

    name: Name
    device: Annotated[
        str, Meta(min_length=1, description="cpu, or auto: the accelerator that torch finds.")
    ] = "auto"
    pool: Annotated[Name | None, Meta(description="Of the fleet file; None: this machine.")] = None
    gives_way_s: Annotated[
        NonNegativeFloat | None,
        Meta(
            description="On a pool: leaves its chips to replicas that find no room there, and is "
            "back so many seconds after the last of them. None: it stays."
        ),
    ] = None
    processes: Annotated[PositiveInt, Meta(description="Ranks inside: FSDP2 over them.")] = 1
    threads: Annotated[PositiveInt | None, Meta(description="CPU threads of a rank.")] = None
    dtype: Annotated[
        Literal["float32", "bfloat16"], Meta(description="Of matrix products; weights stay fp32.")
    ] = "float32"
    is_compiled: Annotated[bool, Meta(description="torch.compile.")] = False
    micro_batch_blocks: Annotated[
        PositiveInt | None, Meta(description="Blocks at once; gradients are accumulated.")
    ] = None
    slowdown: Annotated[
        float,
        Meta(ge=1, description="Pretends to be a slower chip: sleeps (slowdown - 1) x each step."),
    ] = 1.0
    power_w: Annotated[PositiveFloat | None, Meta(description="For joules per token.")] = None
    price_usd_per_hour: PositiveFloat | None = None


class Checkpoints(Config, frozen=True, kw_only=True):
    """What an island keeps of its own: optimizer state, for its own return."""

    every_s: Annotated[
        PositiveFloat | None, Meta(description="None: by Young/Daly from measured costs.")
    ] = None
    is_in_peer_memory: Annotated[
        bool, Meta(description="A copy in another island's memory besides the disk.")
    ] = True
    keep: PositiveInt = 2


class Run(Config, frozen=True, kw_only=True):
    """One training run."""

    run: Name
    model: Model
    data: Data
    tokens: Annotated[PositiveInt, Meta(description="To be trained on, over all islands.")]
    context_tokens: Annotated[PositiveInt, Meta(description="Tokens of a block.")] = 512
    batch_blocks: Annotated[PositiveInt, Meta(description="Blocks of one inner step.")] = 16
    optimizer: Optimizer = msgspec.field(default_factory=Optimizer)
    outer: Outer = msgspec.field(default_factory=Outer)
    islands: Annotated[tuple[Island, ...], Meta(min_length=1)]
    checkpoints: Checkpoints = msgspec.field(default_factory=Checkpoints)
    seed: int = 0

    @property
    def blocks(self) -> int:
        """Of the whole run: whole inner steps, at least one."""
        step = self.batch_blocks * self.context_tokens
        return max(1, round(self.tokens / step)) * self.batch_blocks
