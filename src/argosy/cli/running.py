"""Finds the fleet that runs on a state folder, for the commands that talk to it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import msgspec
import typer

from argosy.cli.operator_socket import Asked, OperatorReply, ask_operator
from argosy.fleet.messages import RunFile

if TYPE_CHECKING:
    from ssl import SSLContext

    from argosy.cli.tls import Identity

# psutil adds the time since boot to a boot time that moves when the clock is set.
_CREATE_TIME_TOLERANCE_S = 2.0

PortOption = Annotated[
    int | None,
    typer.Option(
        "--port", min=1, max=65535, help="The gateway's port, where it is not the state folder's."
    ),
]


ControlOption = Annotated[
    str | None,
    typer.Option(
        "--control",
        metavar="URL[,URL]",
        help="Ask control planes on other hosts, the first that answers; with their token in "
        "ARGOSY_CONTROL_TOKEN.",
    ),
]
TlsOption = Annotated[
    Path | None,
    typer.Option(
        "--tls",
        metavar="DIR",
        file_okay=False,
        help="Mutual TLS with control planes: the folder of tls.crt, tls.key and ca.crt, which are "
        "read again when they change.",
    ),
]
_TOKEN = "ARGOSY_CONTROL_TOKEN"
_TOKEN_CHARS_MIN = 16


def control_token() -> str:
    """Of the control API, from the environment. Exits with 1 where there is none."""
    token = os.environ.get(_TOKEN, "")
    if len(token) < _TOKEN_CHARS_MIN or not token.isascii() or not token.isprintable():
        refuse(
            f"the environment variable {_TOKEN} is to hold the secret of the control API, the "
            f"same on all hosts: {_TOKEN_CHARS_MIN} characters or more, e.g. openssl rand -hex 32"
        )
    return token


def control_urls(control: str) -> list[str]:
    """Those that `--control` names. Exits with 1 where one is none."""
    urls = [url.strip().rstrip("/") for url in control.split(",") if url.strip()]
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            refuse(f"--control {url}: it is a URL, e.g. http://control-1.example:8470")
    if not urls:
        refuse("--control names no URL")
    return list(dict.fromkeys(urls))


class ControlPlanes(msgspec.Struct, frozen=True):
    """Those on other hosts, as a command names them."""

    named: str  # URLs, by commas
    tls: Path | None  # the folder of our certificate


def far(control: str | None, tls: Path | None) -> ControlPlanes | None:
    """Of `--control` and `--tls`; None: this machine's are meant."""
    if control is None and tls is not None:
        refuse("--tls is for control planes on other hosts. Name them: --control URL")
    return None if control is None else ControlPlanes(control, tls)


def tls_identity(folder: Path | None, *, listens: bool) -> "Identity | None":
    """That of `--tls`. Exits with 1 where its files are of no use."""
    if folder is None:
        return None
    from argosy.cli.tls import Identity, TlsError

    try:
        return Identity(folder, listens=listens)
    except TlsError as error:
        return refuse(f"--tls {folder}: {error}")


def check_tls_urls(urls: list[str]) -> None:
    """Exits with 1 where one is without TLS though there are certificates."""
    for url in urls:
        if urlsplit(url).scheme != "https":
            refuse(f"--control {url} is without TLS, though --tls is given. Write https://")


def ask_control(planes: ControlPlanes, path: str, body: bytes | None, *, timeout_s: float) -> bytes:
    """What the first control plane that can says: a POST of `body`, or a GET. Exits with 1."""
    import httpx

    from argosy.cli.tls import in_words

    headers = {"authorization": f"Bearer {control_token()}"}
    method, told = "GET" if body is None else "POST", list[str]()
    urls, identity = control_urls(planes.named), tls_identity(planes.tls, listens=False)
    if identity is not None:
        check_tls_urls(urls)
    tls = True if identity is None else identity.client
    with httpx.Client(headers=headers, timeout=timeout_s, trust_env=False, verify=tls) as client:
        for url in urls:
            try:
                answer = client.request(method, url + path, content=body)
            except (httpx.HTTPError, OSError) as error:
                refused = in_words(error)
                told.append(f"{url} does not answer ({refused or repr(error)})")
                if refused or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    continue
                break  # it may have been done
            if answer.status_code == 200:
                return answer.content
            told.append(f"{url}: HTTP {answer.status_code} {answer.text[:300]}")
    return refuse("; ".join(told))


def running_fleet(state: Path, port: int | None) -> RunFile:
    """The run on that state folder; `port` overrides the gateway's. Exits with 1 without one."""
    try:
        run = msgspec.json.decode((state / "run.json").read_bytes(), type=RunFile)
    except FileNotFoundError:
        refuse(f"no fleet runs on {state}. Start one: argosy up, or name its folder: --state DIR")
    except (OSError, msgspec.DecodeError) as error:
        refuse(f"{state / 'run.json'} cannot be read: {error}")
    if port is None:
        _check_alive(run, state)
        return run
    head = run.gateway_url.rpartition(":")[0]
    return msgspec.structs.replace(run, gateway_url=f"{head}:{port}")


def _check_alive(run: RunFile, state: Path) -> None:
    """A run that was killed leaves its file behind, and its pid to strangers."""
    import psutil

    try:
        created_at_s = psutil.Process(run.pid).create_time()
        if abs(created_at_s - run.started_at_s) <= _CREATE_TIME_TOLERANCE_S:
            return
    except psutil.NoSuchProcess:
        pass
    refuse(
        f"no fleet runs on {state}: its last one (pid {run.pid}) was killed. "
        "Start one: argosy up, or name its folder: --state DIR"
    )


def own_gateway_tls(run: RunFile) -> "SSLContext | bool":
    """What a client of the run's own gateway trusts, for httpx. Exits with 1."""
    if run.tls_cert is None:
        return True
    from argosy.cli.tls import TlsError, trusting

    try:
        return trusting(Path(run.tls_cert))
    except TlsError as error:
        return refuse(str(error))


def ask(
    state: Path, request: Asked, *, timeout_s: float, control: ControlPlanes | None = None
) -> str:
    """What the run on that folder, or at that URL, says to it.

    Exits with 1 where it does not, or refuses.
    """
    if control is not None:
        body = msgspec.json.encode(request)
        told = ask_control(control, "/v1/operator", body, timeout_s=timeout_s)
        reply = msgspec.json.decode(told, type=OperatorReply)
    else:
        run = running_fleet(state, None)
        try:
            reply = ask_operator(state, request, timeout_s=timeout_s)
        except FileNotFoundError:
            refuse(
                f"no control plane runs on {state}: its gateway (pid {run.pid}) has them on other "
                "hosts, or is still starting. Name them: --control URL"
            )
        except (OSError, msgspec.DecodeError) as error:
            refuse(f"the fleet on {state} (pid {run.pid}) does not answer: {error}")
    if not reply.done:
        refuse(f"nothing has changed: {reply.said}")
    return reply.said


def refuse(message: str) -> NoReturn:
    """Say why on stderr; exit with 1."""
    typer.echo(f"argosy: {message}", err=True)
    raise typer.Exit(1)
