"""SkyPilot's API server, as the launcher asks it: few requests, and what their failures mean.

Most questions are asked in two steps: a POST answers with the id of a request, whose outcome is
asked for by that id (SkyPilot 0.14.1: sky/server/server.py, sky/server/requests). What comes as a
pickle there, handles and exceptions, is left closed: everything needed is said in JSON beside it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError

# sky/server/constants.py: API_VERSION of 0.14.1, whose answers were read; servers back to 24 know
# what is asked here, by their own word, and newer ones answer to it.
_API_VERSION = 62
_VERSION = "0.14.1"
_REQUEST_ID = "X-SkyPilot-Request-ID"
_CONNECT_S = 5.0
_NOT_FOUND = 404
_REFUSED = (400, 422)
_LATEST = 1000  # requests that are looked at: those of all clusters, looks included
_TAIL_BYTES = 65536
_MESSAGE_LENGTH_MAX = 600
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # terminal colours
FULL_RETRY_S = 60.0

_FULL = frozenset({"ResourcesUnavailableError", "KubeAPIUnreachableError"})
# The server's own trouble, or a request that was ended: to be asked again.
_AGAIN = frozenset(
    {
        "ConcurrentWorkerExhaustedError",
        "ExecutionPoolFullError",
        "RequestCancelled",
        "RequestInterruptedError",
        "ServerTemporarilyUnavailableError",
    }
)
_WORKS = {
    "NoCloudAccessError": "Give the API server an account of that cloud, and look: sky check",
    "InvalidCloudCredentials": "Renew the API server's account of that cloud, and look: sky check",
    "PermissionDeniedError": "Give launcher.token_env an account that may launch clusters",
    "NoWorkspaceAccessError": "Give launcher.token_env an account of that workspace",
}


class RequestFailedError(Exception):
    """A request has ended otherwise than asked; `kind` is SkyPilot's exception."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One that the server was sent."""

    request_id: str
    name: str  # sky.launch, sky.down, …
    status: str
    created_at: float  # Unix time, of the server's clock
    cluster_name: str | None = None
    request_body: str = "null"  # JSON; null where it was not asked for

    @property
    def is_active(self) -> bool:
        """It has not ended."""
        return self.status in ("PENDING", "WAITING", "RUNNING")

    @property
    def task(self) -> str | None:
        """The YAML that a launch was asked with."""
        body = json.loads(self.request_body)
        return body.get("task") if isinstance(body, dict) else None


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """As the server remembers it."""

    name: str
    status: str  # INIT, UP, STOPPED, AUTOSTOPPING, PENDING
    cluster_hash: str
    launched_at: int
    last_creation_yaml: str | None = None
    init_kind: str | None = None  # launching or unhealthy
    init_status_reason: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What runs on a cluster."""

    job_id: int
    status: str

    @property
    def has_ended(self) -> bool:
        """It runs no more, and never will again."""
        return self.status not in ("INIT", "PENDING", "SETTING_UP", "RUNNING")


class Api:
    """One API server; connects when it is first asked. PoolUnseenError where it cannot be."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._headers = {
            "X-SkyPilot-API-Version": str(_API_VERSION),
            "X-SkyPilot-Version": _VERSION,
        }
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._client: httpx.AsyncClient | None = None

    async def clusters(self, name: str | None = None) -> list[Cluster]:
        """All that there are, or that of this name."""
        body = {
            "cluster_names": None if name is None else [name],
            "all_users": True,
            "include_credentials": False,
            "include_handle": False,
        }
        return self._told(await self._finished("/status", body), list[Cluster])

    async def requests(self, cluster: str | None = None) -> list[Request]:
        """The newest, the newest first; with what was asked only where one cluster is named."""
        asked: dict[str, Any] = {"all_status": True, "limit": _LATEST}
        if cluster is None:
            asked["fields"] = ["request_id", "name", "status", "created_at", "cluster_name"]
        else:
            asked["cluster_name"] = cluster
        told = (await self._send("GET", "/api/status", params=asked)).content
        try:
            found = msgspec.json.decode(told, type=list[Request])
        except msgspec.MsgspecError as error:
            raise PoolUnseenError(f"{self._url}/api/status says what is no list: {error}") from None
        return sorted(found, key=lambda one: one.created_at, reverse=True)

    async def launch(self, cluster: str, task: str) -> str:
        """Ask for it; the request's id. Raises LaunchError."""
        return await self._ask("/launch", {"cluster_name": cluster, "task": task})

    async def down(self, cluster: str, *, timeout_s: float) -> None:
        """Have its machines ended. Raises RequestFailedError, TimeoutError."""
        await self._finished("/down", {"cluster_name": cluster}, timeout_s=timeout_s)

    async def cancel_request(self, request_id: str) -> None:
        """Have a request ended that has not. Raises RequestFailedError."""
        await self._finished("/api/cancel", {"request_ids": [request_id]})

    async def cancel_jobs(self, cluster: str) -> None:
        """Ask all that runs on a cluster to end. Raises RequestFailedError."""
        body = {"cluster_name": cluster, "job_ids": None, "all": True}
        await self._finished("/cancel", body, timeout_s=60.0)

    async def job(self, cluster: str) -> Job | None:
        """The last that it was given. Raises RequestFailedError."""
        body = {"cluster_name": cluster, "skip_finished": False, "all_users": True}
        found = self._told(await self._finished("/queue", body, timeout_s=60.0), list[Job])
        return max(found, key=lambda one: one.job_id, default=None)

    async def address(self, cluster: str, port: int) -> str | None:
        """HOST:PORT, or a URL, under which the port is reached. Raises RequestFailedError."""
        told = await self._finished("/endpoints", {"cluster": cluster, "port": port})
        return (
            self._told(told, dict[str, str] | None, strict=False).get(str(port)) if told else None
        )

    async def log_tail(self, cluster: str, job_id: int, *, lines: int) -> str:
        """The last lines that a job wrote."""
        body = {"cluster_name": cluster, "job_id": job_id, "follow": False, "tail": lines}
        told = await self._send("POST", "/logs", body=body, read_s=60.0)
        return _ESCAPES.sub("", told.content[-_TAIL_BYTES:].decode(errors="replace"))

    async def outcome(self, request_id: str, *, timeout_s: float) -> Any:  # noqa: ANN401  JSON
        """What came of a request. Raises RequestFailedError, TimeoutError where it still runs."""
        params = {"request_id": request_id}
        try:
            answer = await self._opened().get(
                f"{self._url}/api/get",
                params=params,
                timeout=httpx.Timeout(_CONNECT_S, read=max(0.05, timeout_s)),
            )
        except httpx.ReadTimeout:
            raise TimeoutError from None
        except httpx.HTTPError as error:
            raise self._unseen("/api/get", error) from error
        return self._ended(answer)

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _finished(self, path: str, body: Mapping[str, Any], *, timeout_s: float = 8.0) -> Any:  # noqa: ANN401
        """Raises RequestFailedError, and PoolUnseenError where it takes longer."""
        request_id = await self._ask(path, body)
        try:
            return await self.outcome(request_id, timeout_s=timeout_s)
        except TimeoutError as error:
            told = f"{self._url}{path} has not ended after {timeout_s:g} s"
            raise PoolUnseenError(told) from error

    async def _ask(self, path: str, body: Mapping[str, Any]) -> str:
        """The id of the request. Raises LaunchError where it is refused as it stands."""
        answer = await self._send("POST", path, body=body)
        found = answer.headers.get(_REQUEST_ID)
        if found is None:
            raise PoolUnseenError(f"{self._url}{path} names no request: is it SkyPilot's API?")
        return found

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        read_s: float = 10.0,
    ) -> httpx.Response:
        try:
            answer = await self._opened().request(
                method,
                f"{self._url}{path}",
                json=None if body is None else dict(body),
                params=None if params is None else dict(params),
                timeout=httpx.Timeout(_CONNECT_S, read=read_s),
            )
        except httpx.HTTPError as error:
            raise self._unseen(path, error) from error
        if answer.status_code in _REFUSED:
            told = f"{self._url}{path} refuses what it was asked: {_plain(answer.text)}"
            raise LaunchError(f"{told}. Is it SkyPilot {_VERSION} or newer?")
        if not answer.is_success:
            told = f"{self._url}{path} answers {answer.status_code}: {_plain(answer.text)}"
            raise PoolUnseenError(f"{told}{_right(answer.status_code)}")
        return answer

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                headers=self._headers,
                limits=httpx.Limits(max_connections=64),
                trust_env=False,  # what is asked of a proxy for others is not asked for this
            )
        return self._client

    def _ended(self, answer: httpx.Response) -> Any:  # noqa: ANN401
        try:
            told = answer.json()
        except ValueError:
            told = None
        told = told.get("detail", told) if isinstance(told, dict) else told
        if not isinstance(told, dict) or "return_value" not in told:
            raise PoolUnseenError(
                f"{self._url}/api/get answers {answer.status_code}: {_plain(answer.text)}"
                f"{_right(answer.status_code)}"
            )
        if told.get("status") == "SUCCEEDED":
            return json.loads(told["return_value"])
        error = json.loads(told.get("error") or "null") or {}
        kind = str(error.get("type") or "RequestCancelled")
        raise RequestFailedError(kind, _plain(str(error.get("message") or told.get("status"))))

    def _told(self, told: Any, kind: Any, *, strict: bool = True) -> Any:  # noqa: ANN401
        try:
            return msgspec.convert(told, kind, strict=strict)
        except msgspec.ValidationError as error:
            raise PoolUnseenError(f"{self._url} answers what is not known here: {error}") from None

    def _unseen(self, path: str, error: Exception) -> PoolUnseenError:
        return PoolUnseenError(f"{self._url}{path}: {type(error).__name__}: {error}")


def refusal(error: RequestFailedError, what: str) -> Exception:
    """What it means for the port that a launch has failed; `what` begins the sentence."""
    told = f"{what}: {error.message}"
    if error.kind in _FULL:
        return NoCapacityError(told, retry_after_s=FULL_RETRY_S)
    if error.kind in _AGAIN:
        return PoolUnseenError(told)
    works = _WORKS.get(error.kind, "The API server knows more: sky api logs")
    return LaunchError(f"{what}: {error.kind}: {error.message}. {works}")


def _plain(text: str) -> str:
    told = " ".join(_ESCAPES.sub("", text).split())
    return told.rstrip(".")[:_MESSAGE_LENGTH_MAX]


def _right(status: int) -> str:
    return ". Give launcher.token_env a token that it knows" if status in (401, 403) else ""
