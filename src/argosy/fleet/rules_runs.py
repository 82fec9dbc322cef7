"""What relates two places of a run, and a run to its data: sizes that must fit together.

As `rules.py`: each rule may trust the types, and gives its findings as a path and the rest of the
sentence. What the data is comes as `DataFacts`, from whoever read its manifest.
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from argosy.fleet.document import Path, did_you_mean
from argosy.fleet.runs import Island, NewModel, Run

_Finding: TypeAlias = tuple[Path, str]

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_FRAGMENT_BYTES_MIN = 4096  # below it there are more names than values
PARAMETERS_MAX = 20_000_000_000  # in one vector on each host: 80 GB of fp32


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder of packed tokens holds, as its manifest says."""

    blocks: int  # with those kept back for validation
    context_tokens: int
    vocab_size: int


def cross_check(run: Run) -> Iterator[_Finding]:
    """What no single value shows: each rule's findings, as a path and the rest of the sentence."""
    for rule in _RULES:
        yield from rule(run)


def check_data(run: Run, data: DataFacts) -> Iterator[_Finding]:
    """What does not fit between the run and its data."""
    if run.context_tokens != data.context_tokens:
        told = f"= {run.context_tokens}, but {run.data.path} is packed for {data.context_tokens}."
        works = f"Write context_tokens: {data.context_tokens}, or prepare the data again."
        yield ("context_tokens",), f"{told} {works}"
    if run.data.validation_blocks >= data.blocks:
        told = f"= {run.data.validation_blocks} of {data.blocks} blocks leaves none to train on."
        works = f"Write at most {max(0, data.blocks // 10)}, or prepare more data."
        yield ("data", "validation_blocks"), f"{told} {works}"


def check_pools(run: Run, pools: tuple[str, ...] | None) -> Iterator[_Finding]:
    """Pools that islands name; `pools`: those of the fleet that can start them. None: no fleet."""
    for index, island in enumerate(run.islands):
        at = ("islands", index, "pool")
        if island.pool is None or (pools is not None and island.pool in pools):
            continue
        if pools is None:
            told = f'= "{island.pool}" is of a fleet file, and none is given.'
            yield at, f"{told} Name it: --fleet FLEET.yaml, or leave pool out: this machine."
        else:
            told = f'= "{island.pool}" is not a Ray pool of that fleet.'
            yield at, told + did_you_mean(island.pool, "pool", list(pools))


def parameters_of(model: NewModel, vocab_size: int) -> int:
    """How many values are trained."""
    head_dim = model.hidden // model.heads
    attention = model.hidden * head_dim * (2 * model.heads + 2 * model.kv_heads)
    block = attention + 3 * model.hidden * model.mlp + 2 * model.hidden
    embeddings = vocab_size * model.hidden * (1 if model.tie_embeddings else 2)
    return model.layers * block + model.hidden + embeddings


def _odd_names(run: Run) -> Iterator[_Finding]:
    named = [(("run",), run.run), *((("islands", i, "name"), o.name) for i, o in _islands(run))]
    for path, name in named:
        if not _PLAIN_NAME.fullmatch(name):
            told = f'= "{name}" becomes a folder and a certificate: letters, digits and . _ - only,'
            yield path, f"{told} 63 at most."
    seen: set[str] = set()
    for index, island in _islands(run):
        if island.name.lower() in seen:
            told = f'is a second "{island.name}". Rename or remove one of them.'
            yield ("islands", index), told
        seen.add(island.name.lower())


def _islands(run: Run) -> Iterator[tuple[int, Island]]:
    yield from enumerate(run.islands)


def _heads_that_do_not_fit(run: Run) -> Iterator[_Finding]:
    model = run.model
    if not isinstance(model, NewModel):
        return
    if model.hidden % model.heads:
        near = max(1, round(model.hidden / model.heads)) * model.heads
        told = f"= {model.hidden} is no multiple of heads = {model.heads}."
        yield ("model", "hidden"), f"{told} Write hidden: {near}, for example."
    elif (model.hidden // model.heads) % 2:
        told = f"= {model.heads} leaves {model.hidden // model.heads} values a head;"
        yield ("model", "heads"), f"{told} rotary embeddings need an even number."
    if model.heads % model.kv_heads:
        fits = [n for n in range(1, model.heads + 1) if model.heads % n == 0]
        told = f"= {model.kv_heads} does not divide heads = {model.heads}."
        yield ("model", "kv_heads"), f"{told} What does: {', '.join(map(str, fits[:12]))}"


def _model_too_large(run: Run) -> Iterator[_Finding]:
    if isinstance(run.model, NewModel):
        parameters = parameters_of(run.model, 0)
        if parameters > PARAMETERS_MAX:
            told = f"has {parameters / 1e9:,.0f} billion parameters before embeddings; an island"
            yield ("model",), f"{told} holds at most {PARAMETERS_MAX / 1e9:.0f} billion here."


def _giving_way_to_nobody(run: Run) -> Iterator[_Finding]:
    for index, island in _islands(run):
        if island.gives_way_s is not None and island.pool is None:
            told = "is for islands on a pool, which replicas share; this one is on this machine."
            yield ("islands", index, "gives_way_s"), f"{told} Leave it out, or name its pool."


def _quorum(run: Run) -> Iterator[_Finding]:
    if run.outer.quorum > len(run.islands):
        told = f"= {run.outer.quorum}, but there are {len(run.islands)} islands: no round would"
        yield ("outer", "quorum"), f"{told} ever close. Write {len(run.islands)} at most."


def _odd_optimizers(run: Run) -> Iterator[_Finding]:
    optimizer = run.optimizer
    for name, beta in (("beta1", optimizer.beta1), ("beta2", optimizer.beta2)):
        if beta >= 1:
            told = "= 1 would never take up a gradient. Write a number below 1."
            yield ("optimizer", name), told
    if optimizer.schedule == "wsd" and optimizer.warmup_share + optimizer.decay_share > 1:
        told = f"= {optimizer.decay_share} and warmup_share = {optimizer.warmup_share} are more"
        yield ("optimizer", "decay_share"), f"{told} than the whole run. Lower one of them."


def _odd_fragments(run: Run) -> Iterator[_Finding]:
    if run.outer.fragment_bytes_max < _FRAGMENT_BYTES_MIN:
        told = f"= {run.outer.fragment_bytes_max} makes fragments of a few values."
        yield ("outer", "fragment_bytes_max"), f"{told} Write at least {_FRAGMENT_BYTES_MIN}."


def _batches_that_do_not_divide(run: Run) -> Iterator[_Finding]:
    for index, island in _islands(run):
        if run.batch_blocks % island.processes:
            told = f"= {island.processes} does not divide batch_blocks = {run.batch_blocks}."
            yield ("islands", index, "processes"), f"{told} Each rank takes an equal part."
            continue
        part, micro = run.batch_blocks // island.processes, island.micro_batch_blocks
        if micro is not None and part % micro:
            told = f"= {micro} does not divide the {part} blocks of a rank's part of a step."
            fits = [n for n in range(1, part + 1) if part % n == 0]
            at = ("islands", index, "micro_batch_blocks")
            yield at, f"{told} What does: {', '.join(map(str, fits[:12]))}"


def _too_few_tokens(run: Run) -> Iterator[_Finding]:
    step = run.batch_blocks * run.context_tokens
    if run.tokens < step:
        told = f"= {run.tokens:,} is less than one step: batch_blocks x context_tokens = {step:,}."
        yield ("tokens",), f"{told} Write at least that, or make steps smaller."


_RULES: tuple[Callable[[Run], Iterator[_Finding]], ...] = (
    _odd_names,
    _heads_that_do_not_fit,
    _model_too_large,
    _quorum,
    _giving_way_to_nobody,
    _odd_optimizers,
    _odd_fragments,
    _batches_that_do_not_divide,
    _too_few_tokens,
)
