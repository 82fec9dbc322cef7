"""`run.json` in the state folder: written by what listens there, read by `running.py`."""

import os
from pathlib import Path

import msgspec
import psutil

from argosy.fleet.config import Gateway
from argosy.fleet.messages import RunFile

RUN_FILE = "run.json"


def write_run_file(state: Path, *, url: str, operator_token: str, gateway: Gateway) -> None:
    """Whole, and for this user alone. Raises OSError."""
    run = RunFile(
        pid=os.getpid(),
        started_at_s=psutil.Process().create_time(),
        gateway_url=url,
        operator_token=operator_token,
        tls_cert=None if gateway.tls is None else str(Path(gateway.tls.cert).absolute()),
    )
    fresh = (state / RUN_FILE).with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(run))
    fresh.replace(state / RUN_FILE)


def remove_run_file(state: Path) -> None:
    """Nothing listens any more."""
    (state / RUN_FILE).unlink(missing_ok=True)
