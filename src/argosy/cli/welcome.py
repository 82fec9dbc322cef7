"""What `argosy up` prints when the first replica is ready: the address, the key, what to paste."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from argosy.fleet.config import Fleet, Pool

# Asked "What is the capital of France?" the embedded model, sampled as its authors recommend,
# answers in French prose one time in four; asked like this it said Paris 120 times of 120.
_QUESTION = "Name the capital of France."


def welcome(fleet: Fleet, *, url: str, secret: str, is_pretended: bool = False) -> str:
    """The text for stdout; the key stands alone on its line."""
    model = fleet.deployments[0].model
    python = _python()
    return "\n".join(
        (
            "",
            f"Argosy serves {', '.join(served.name for served in fleet.models)} at {url}",
            f"API key: {secret}",
            "(shown once, good until the next argosy up; lasting ones: argosy keys create)",
            "",
            *(_pretence(fleet) if is_pretended else ()),
            "Paste one of these:",
            "",
            _curl(url, secret, model),
            "",
            _openai(python, url, secret, model),
            "",
            _anthropic(python, url, secret, model),
            "",
            "Or: argosy chat, argosy status --watch. Ctrl-C drains and stops.",
        )
    )


def _pretence(fleet: Fleet) -> Iterator[str]:
    """What stands for what, and how to lose some of it."""
    count = sum(one.replicas for one in fleet.deployments)
    yield f"All {count} replicas are simulated, processes of this machine. They stand for:"
    rows = [(one.name, one.region or "this machine", one.chip or "no chip") for one in fleet.pools]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for pool, row in zip(fleet.pools, rows, strict=True):
        columns = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(columns)}  {_replicas(fleet, pool)}"
    regions = [pool.region for pool in fleet.pools if pool.region is not None]
    domain = regions[0].split("/")[0] if regions else fleet.pools[0].name
    yield f"Lose some of it: argosy pretend lose {domain}"
    yield f"and have it again: argosy pretend back {domain}"
    yield ""


def _replicas(fleet: Fleet, pool: Pool) -> str:
    own = [one for one in fleet.deployments if one.pool == pool.name]
    return ", ".join(f"{one.model} x {one.replicas}" for one in own) or "none"


def _curl(url: str, secret: str, model: str) -> str:
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"{_QUESTION}"}}]}}'
    return (
        f"curl {url}/v1/chat/completions -H 'Authorization: Bearer {secret}' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


def _openai(python: str, url: str, secret: str, model: str) -> str:
    return (
        f'{python} -c "from openai import OpenAI; '
        f"print(OpenAI(base_url='{url}/v1', api_key='{secret}').chat.completions.create("
        f"model='{model}', messages=[{{'role': 'user', 'content': '{_QUESTION}'}}]"
        f').choices[0].message.content)"'
    )


def _anthropic(python: str, url: str, secret: str, model: str) -> str:
    return (
        f'{python} -c "from anthropic import Anthropic; '
        f"print(Anthropic(base_url='{url}', api_key='{secret}').messages.create("
        f"model='{model}', max_tokens=100, "
        f"messages=[{{'role': 'user', 'content': '{_QUESTION}'}}]).content[0].text)\""
    )


def _python() -> str:
    """The interpreter in use, as briefly as a shell in this folder needs it."""
    here = Path(sys.executable)
    relative = os.path.relpath(here)
    return relative if len(relative) < len(str(here)) else str(here)
