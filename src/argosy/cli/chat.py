"""`argosy chat`: a conversation in the terminal, streamed through the gateway like any other.

Speaks the OpenAI API over HTTP, so that what it shows is what a client gets.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
import typer

from argosy.cli.running import PortOption, own_gateway_tls, refuse, running_fleet
from argosy.cli.state import StateDir
from argosy.fleet.messages import RunFile

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 600.0
_HELP = "/new starts over, /exit or Ctrl-D leaves, Ctrl-C stops an answer"


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Error(msgspec.Struct):
    message: str


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: _Error | None = None


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def chat(
    question: Annotated[
        str | None, typer.Argument(help="Ask this and leave; without it, a conversation.")
    ] = None,
    *,
    state: StateDir,
    port: PortOption = None,
    model: Annotated[str | None, typer.Option(help="The model; unset: the first one.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 512,
) -> None:
    """Talk to a model of the running fleet. A key in ARGOSY_API_KEY is used if there is one.

    Examples:
        argosy chat

        argosy chat "Name the capital of France."

    """
    import httpx

    run = running_fleet(state, port)
    key = os.environ.get("ARGOSY_API_KEY") or run.operator_token
    with httpx.Client(
        base_url=run.gateway_url,
        headers={"authorization": f"Bearer {key}"},
        timeout=_TIMEOUT_S,
        trust_env=False,
        verify=own_gateway_tls(run),
    ) as client:
        talk = _Talk(client, model=model or _first_model(client, run), max_tokens=max_tokens)
        talk.begin(system)
        if question is not None:
            talk.ask(question)
        else:
            _converse(talk, system)


def _converse(talk: "_Talk", system: str | None) -> None:
    if sys.stdin.isatty():
        import readline  # noqa: F401 - gives input() its history and line editing

        typer.echo(f"{talk.model}. {_HELP}.", err=True)
    for line in _lines():
        match line.strip():
            case "":
                continue
            case "/exit" | "/quit":
                return
            case "/new":
                talk.begin(system)
            case question:
                _ask_on(talk, question)


def _ask_on(talk: "_Talk", question: str) -> None:
    """A refused question ends a script, not the conversation of someone at a terminal."""
    try:
        talk.ask(question)
    except typer.Exit:
        if not sys.stdin.isatty():
            raise


def _lines() -> Iterator[str]:
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt)
        except EOFError:
            return
        except KeyboardInterrupt:
            typer.echo()
            return


class _Talk:
    """One conversation: what was said so far, and the client that says more."""

    def __init__(self, client: "httpx.Client", *, model: str, max_tokens: int) -> None:
        self.model = model
        self._client = client
        self._max_tokens = max_tokens
        self._said: list[dict[str, str]] = []

    def begin(self, system: str | None) -> None:
        """Forget what was said."""
        self._said = [{"role": "system", "content": system}] if system else []

    def ask(self, question: str) -> None:
        """Print the answer as it comes, and remember both. Exits with 1 when it is refused."""
        asked = [*self._said, {"role": "user", "content": question}]
        answer = ""
        try:
            for text in self._answer(asked):
                answer += text
                typer.echo(text, nl=False)
                sys.stdout.flush()
        except KeyboardInterrupt:
            typer.echo(" [stopped]", nl=False)
        finally:
            if answer:
                typer.echo()
        # A turn of no words would be refused with every later question.
        if answer:
            self._said = [*asked, {"role": "assistant", "content": answer}]

    def _answer(self, asked: list[dict[str, str]]) -> Iterator[str]:
        import httpx

        body = {
            "model": self.model,
            "messages": asked,
            "max_tokens": self._max_tokens,
            "stream": True,
        }
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    _refused(response.read())
                yield from _texts(response.iter_lines())
        except httpx.HTTPError as error:
            refuse(f"the gateway broke off: {error}")


def _texts(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        data = line.removeprefix("data: ")
        if data == line or data == "[DONE]":
            continue
        chunk = msgspec.json.decode(data, type=_Chunk)
        if chunk.error is not None:
            refuse(chunk.error.message)
        for choice in chunk.choices:
            if choice.delta.content:
                yield choice.delta.content


def _refused(body: bytes) -> NoReturn:
    try:
        error = msgspec.json.decode(body, type=_Chunk).error
    except msgspec.DecodeError:
        error = None
    refuse(error.message if error else body[:500].decode(errors="replace"))


def _first_model(client: "httpx.Client", run: RunFile) -> str:
    import httpx

    try:
        response = client.get("/v1/models")
    except httpx.HTTPError as error:
        refuse(f"the gateway at {run.gateway_url} does not answer ({error}); is pid {run.pid} up?")
    if response.status_code != 200:
        _refused(response.content)
    return msgspec.json.decode(response.content, type=_Models).data[0].id
