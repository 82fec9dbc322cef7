"""A run's parameters as a model on the disk: a Hugging Face folder, and a GGUF file beside it.

Owns where the parameters come from: of a finished run its last version, of another the newest one
that its syncer has on the disk. What the files hold is `training/export.py`'s.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from argosy.cli.running import refuse
from argosy.cli.training_folder import KeptRun, RunFolder
from argosy.fleet.runs import NewModel, Run
from argosy.training.inner import Tensor, Vector

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from argosy.training.torch_island.shape import LlamaShape

GGUF_FILE = "model.gguf"


class _Final(msgspec.Struct, frozen=True, kw_only=True):
    """What `final/parameters.json` of a syncer's folder says."""

    version: int
    sha256: str
    tensors: tuple[Tensor, ...]


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    run: str
    version: int
    parameters: int
    folder: str
    gguf: str | None


def export_run(
    folder: RunFolder, kept: KeptRun, engine: "Engine", *, out: Path, dtype: str | None
) -> Exported:
    """Write the model to the new folder `out`; `dtype`: of a GGUF file in it, None: none.

    Exits with 1 where that cannot be done.
    """
    from argosy.training.export import ExportError, export_vector, write_gguf

    if kept.inner != "torch":
        refuse(f"run {folder.name} trained the reference island's table, which no engine serves")
    version, tensors, vector = _newest(folder, kept, engine)
    model, file = kept.run.model, None if dtype is None else out / GGUF_FILE
    try:
        with tempfile.TemporaryDirectory(prefix="argosy-export-") as aside:
            if isinstance(model, NewModel):
                source, text = _new_shape(kept.run, model)
                tokenizer = Path(aside) / "tokenizer.json"
                tokenizer.write_text(text, "utf-8")
            else:
                source, tokenizer = Path(model.path), None
            export_vector(vector, tensors, out, source=source, tokenizer=tokenizer)
        if file is not None and dtype is not None:
            write_gguf(out, file, dtype=dtype)
    except ExportError as error:
        return refuse(str(error))
    except OSError as error:
        return refuse(f"{out} cannot be written: {error.strerror}. Name another folder: --out DIR")
    return Exported(
        run=folder.name,
        version=version,
        parameters=int(vector.size),
        folder=str(out),
        gguf=None if file is None else str(file),
    )


def _newest(
    folder: RunFolder, kept: KeptRun, engine: "Engine"
) -> tuple[int, tuple[Tensor, ...], Vector]:
    """Version, tensors and the vector. Exits with 1 where there is none, or it is damaged."""
    import numpy as np

    final = folder.syncer / "final"
    if not (final / "parameters.json").exists():
        return _computed(folder, kept, engine)
    try:
        told = msgspec.json.decode((final / "parameters.json").read_bytes(), type=_Final)
        content = (final / "parameters.f32").read_bytes()
    except (OSError, msgspec.DecodeError) as error:
        return refuse(f"{final} cannot be read: {error}. Restore it from a copy")
    found = hashlib.sha256(content).hexdigest()
    if found != told.sha256:
        return refuse(
            f"{final / 'parameters.f32'} is corrupt: its SHA-256 is {found}, and {told.sha256} was "
            "written. Restore it from a copy"
        )
    return told.version, told.tensors, np.frombuffer(content, "<f4").astype(np.float32)


def _computed(
    folder: RunFolder, kept: KeptRun, engine: "Engine"
) -> tuple[int, tuple[Tensor, ...], Vector]:
    """Of a run that has not ended: from its newest snapshot and the rounds after it."""
    from argosy.store.runs import read_run, rounds_of
    from argosy.training.syncer.vault import FullError, Vault
    from argosy.training.syncer.versions import LostError, Versions

    if folder.is_kept():
        refuse(
            f"run {folder.name} is being trained. Wait until it is finished, or stop it first: "
            f"argosy runs stop {folder.name}"
        )
    version = read_run(engine, folder.name).version
    if version is None:
        refuse(f"run {folder.name} has no parameters yet: no island has sent any")
    longest = max(kept.run.outer.fragment_bytes_max, 4096) + 64
    vault = Vault(folder.syncer, fragment_bytes_max=longest)
    versions = Versions(folder.syncer, vault, fragment_bytes_max=kept.run.outer.fragment_bytes_max)
    try:
        versions.begin(version, lambda after: rounds_of(engine, folder.name, after=after))
    except (LostError, FullError) as error:
        return refuse(str(error))
    assert versions.map is not None
    return version, versions.map.tensors, versions.published()


def _new_shape(run: Run, model: NewModel) -> "tuple[LlamaShape, str]":
    """Of a model from random weights its shape, and the tokenizer of its data as JSON."""
    from argosy.training.data.manifest import DatasetError
    from argosy.training.data.reader import Dataset
    from argosy.training.torch_island.shape import new_shape

    try:
        dataset = Dataset.open(run.data.path)
        tokenizer = dataset.tokenizer_json()
    except DatasetError as error:
        return refuse(f"the tokenizer is the data's: {error}")
    shape = new_shape(model, vocabulary=dataset.vocab_size, context_tokens=run.context_tokens)
    return shape, tokenizer
