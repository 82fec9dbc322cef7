"""What `argosy up` prints when the first replica is ready: the address, the key, what to paste."""

import os
import sys
from pathlib import Path

from argosy.fleet.config import Fleet

# Asked "What is the capital of France?" the embedded model, sampled as its authors recommend,
# answers in French prose one time in four; asked like this it said Paris 120 times of 120.
_QUESTION = "Name the capital of France."


def welcome(fleet: Fleet, *, url: str, secret: str) -> str:
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
