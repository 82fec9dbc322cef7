"""The API server, as the launcher asks it: few requests, and what their failures mean.

Owns the connection (a kubeconfig's context, or the account of the pod that we run in) and turns
every failure into one of the port's three. What is asked, and what it says of a replica, is
`launch.py`'s and `observing.py`'s.
"""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import httpx2
import msgspec
from lightkube import ApiError, AsyncClient
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, KubeConfig, SingleConfig
from lightkube.config.models import NameValue
from lightkube.core.exceptions import ConfigError
from lightkube.generic_resource import GenericNamespacedResource, create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Node, Pod
from lightkube.resources.resource_v1 import ResourceClaimTemplate
from lightkube.types import CascadeType, PatchType

from argosy.fleet.launchers import KubernetesLauncher
from argosy.launchers.kubernetes.manifests import Manifest
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError

LeaderWorkerSet = create_namespaced_resource(
    "leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets"
)
Kind: TypeAlias = type[Deployment | GenericNamespacedResource | Pod | Node | ResourceClaimTemplate]
_Object = TypeVar(
    "_Object", Deployment, GenericNamespacedResource, Pod, Node, ResourceClaimTemplate
)

_KINDS: dict[str, Kind] = {
    "Deployment": Deployment,
    "LeaderWorkerSet": LeaderWorkerSet,
    "ResourceClaimTemplate": ResourceClaimTemplate,
}
_MANAGER = "argosy"
_TIMEOUT_S = 5.0
_WATCH_S = 290  # an API server ends a watch after 5 to 10 minutes by itself
_CHUNK = 500  # objects of one answer
_CONFLICT_TRIES = 3
_CONFLICT_PAUSE_S = 0.2
_GONE = 410
_NOT_FOUND = 404
_CONFLICT = 409
_FORBIDDEN = 403
_BUSY = (401, 429, 500, 502, 503, 504)  # 401: a token that is being renewed
_QUOTA_RETRY_S = 30.0

_UNREACHABLE = (
    httpx2.HTTPError,
    httpx2.StreamError,
    httpx2.InvalidURL,
    OSError,
    ConfigError,
    KeyError,  # lightkube's, of a kubeconfig that lacks a part or an error that lacks a type
    AssertionError,  # lightkube's, of a context without a user
    msgspec.MsgspecError,  # what no API server says
    json.JSONDecodeError,  # of an exec plugin
    subprocess.CalledProcessError,  # of an exec plugin
)


class WatchExpiredError(Exception):
    """The version that the watch began at is no longer kept: list again."""


class Api:
    """One API server. Connects when it is first asked."""

    def __init__(self, launcher: KubernetesLauncher, *, config: SingleConfig | None = None) -> None:
        self._launcher = launcher
        self._config = config
        self._client: AsyncClient | None = None

    async def get(self, kind: type[_Object], name: str) -> _Object | None:
        """The object, or None where there is none."""
        found: _Object | None = None
        with self._asking(f"get {kind.__name__} {name}"):
            try:
                found = await self._opened().get(kind, name, **self._where(kind))
            except httpx2.HTTPStatusError as error:
                if _status(error) != _NOT_FOUND:
                    raise
        return found

    async def list(self, kind: type[_Object], labels: dict[str, str]) -> list[_Object]:
        """All that bear the labels; [] where the cluster has no such kind."""
        return [one async for one in self._listed(kind, labels)]

    async def version(self, kind: type[_Object], labels: dict[str, str]) -> str | None:
        """From where a watch sees all that comes; None where the cluster has no such kind."""
        version: str | None = None
        with self._asking(f"list {kind.__name__}"):
            try:
                found = self._opened().list(
                    kind, **self._where(kind), labels=labels, chunk_size=_CHUNK
                )
                async for _ in found:
                    pass
                version = found.resourceVersion
            except httpx2.HTTPStatusError as error:
                if _status(error) != _NOT_FOUND:
                    raise
        return version

    async def apply(self, manifest: Manifest) -> None:
        """Have it be so (server-side apply). Raises LaunchError, NoCapacityError too."""
        kind, name = _KINDS[manifest["kind"]], manifest["metadata"]["name"]
        for tried in range(1, _CONFLICT_TRIES + 1):
            with self._asking(f"apply {kind.__name__} {name}"):
                try:
                    await self._patch(kind, name, manifest)
                except httpx2.HTTPStatusError as error:
                    if _status(error) != _CONFLICT or tried == _CONFLICT_TRIES:
                        raise _refusal(error, manifest, self._launcher) from error
                else:
                    return
            await asyncio.sleep(_CONFLICT_PAUSE_S * tried)

    async def delete(
        self, kind: Kind, name: str, *, grace_s: int | None = None, is_foreground: bool = False
    ) -> None:
        """Have it not be. One that is not there is fine."""
        cascade = CascadeType.FOREGROUND if is_foreground else None
        with self._asking(f"delete {kind.__name__} {name}"):
            try:
                await self._opened().delete(
                    kind,
                    name,
                    namespace=self._namespace,
                    grace_period=grace_s,
                    cascade=cascade,
                )
            except httpx2.HTTPStatusError as error:
                if _status(error) != _NOT_FOUND:
                    raise

    async def patch_node(self, name: str, patch: dict[str, Any]) -> None:
        """Merge it into the node."""
        with self._asking(f"patch node {name}"):
            await self._opened().patch(Node, name, patch, patch_type=PatchType.MERGE)

    async def changes(
        self, kind: type[_Object], labels: dict[str, str], *, since: str
    ) -> AsyncIterator[str]:
        """The version of each change to what bears the labels. Raises WatchExpiredError."""
        with self._asking(f"watch {kind.__name__}"):
            try:
                events = self._opened().watch(
                    kind,
                    **self._where(kind),
                    labels=labels,
                    resource_version=since,
                    server_timeout=_WATCH_S,
                )
                async for _, changed in events:
                    yield meta(changed).resourceVersion or since
            except httpx2.HTTPStatusError as error:
                if _status(error) == _GONE:
                    raise WatchExpiredError from error
                raise

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _patch(self, kind: Kind, name: str, manifest: Manifest) -> None:
        await self._opened().patch(
            kind,
            name,
            manifest,
            namespace=self._namespace,
            patch_type=PatchType.APPLY,
            force=True,  # what we say of our own objects holds, whoever has changed them
        )

    async def _listed(self, kind: type[_Object], labels: dict[str, str]) -> AsyncIterator[_Object]:
        with self._asking(f"list {kind.__name__}"):
            try:
                found = self._opened().list(
                    kind, **self._where(kind), labels=labels, chunk_size=_CHUNK
                )
                async for one in found:
                    yield one
            except httpx2.HTTPStatusError as error:
                if _status(error) != _NOT_FOUND:
                    raise

    @property
    def _namespace(self) -> str:
        return self._launcher.namespace

    def _where(self, kind: Kind) -> dict[str, Any]:
        return {} if issubclass(kind, Node) else {"namespace": self._namespace}

    def _opened(self) -> Any:  # noqa: ANN401  its overloads know no "one of these kinds"
        if self._client is None:
            config = self._config or _config(self._launcher.context)
            self._client = AsyncClient(
                config, timeout=httpx2.Timeout(_TIMEOUT_S), field_manager=_MANAGER
            )
        return self._client

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Anything that goes wrong with it, but what the port knows already, is a pool unseen."""
        try:
            yield
        except httpx2.HTTPStatusError as error:
            raise PoolUnseenError(_unseen(error, what, self._launcher)) from error
        except _UNREACHABLE as error:
            where = self._launcher.context or "the current context"
            told = f"{what} on {where}: {type(error).__name__}: {error}"
            raise PoolUnseenError(told) from error


def meta(
    found: Deployment | GenericNamespacedResource | Pod | Node | ResourceClaimTemplate,
) -> ObjectMeta:
    """An object's metadata, which each object has."""
    assert found.metadata is not None
    return found.metadata


def _config(context: str | None) -> SingleConfig:
    """Of a kubeconfig; or, where no context is asked for, of the pod that we run in."""
    if context is None:
        found = KubeConfig.from_env().get()
    else:
        file = os.environ.get("KUBECONFIG", DEFAULT_KUBECONFIG)
        found = KubeConfig.from_file(file).get(context)
    assert found is not None  # get() raises where there is none
    return _with_plugin(found)


def _with_plugin(config: SingleConfig) -> SingleConfig:
    """A login plugin as it expects to be called.

    lightkube 1.0 tells it nothing and takes v1beta1 alone, whose answer is v1's to the letter
    where it is a token (Kubernetes, "client-go credential plugins").
    """
    user = config.user
    if user is None or user.exec is None:
        return config
    told = {
        "kind": "ExecCredential",
        "apiVersion": user.exec.apiVersion,
        "spec": {"interactive": False},
    }
    variable = NameValue(name="KUBERNETES_EXEC_INFO", value=json.dumps(told))
    plugin = msgspec.structs.replace(
        user.exec,
        apiVersion=re.sub(r"/v1$", "/v1beta1", user.exec.apiVersion),
        env=[*(user.exec.env or []), variable],
    )
    return config._replace(user=msgspec.structs.replace(user, exec=plugin))


def _status(error: httpx2.HTTPStatusError) -> int | None:
    """Of the answer; of an event in a watch, which has no answer of its own, what it says."""
    if isinstance(error, ApiError):
        return error.status.code
    return error.response.status_code


def _message(error: httpx2.HTTPStatusError) -> str:
    said = error.status.message if isinstance(error, ApiError) else None
    return said or str(error)


def _unseen(error: httpx2.HTTPStatusError, what: str, launcher: KubernetesLauncher) -> str:
    told = f"{what} in namespace {launcher.namespace}: {_message(error)}"
    if _status(error) == _FORBIDDEN:
        return f"{told}. Give the account the role in docs/KUBERNETES.md"
    return told


def _refusal(
    error: httpx2.HTTPStatusError, manifest: Manifest, launcher: KubernetesLauncher
) -> Exception:
    """What it means that an object was not taken."""
    status, message = _status(error), _message(error)
    what = f"{manifest['kind']} {manifest['metadata']['name']}"
    if status == _FORBIDDEN and is_quota(message):
        return NoCapacityError(f"{what}: {message}", retry_after_s=_QUOTA_RETRY_S)
    if status == _CONFLICT:
        return NoCapacityError(f"{what} is changed by others all the time: {message}")
    if status in _BUSY:
        return PoolUnseenError(f"{what}: {message}")
    works = "Look at what the cluster allows"
    if status == _NOT_FOUND:
        works = (
            f"Create namespace {launcher.namespace}, or install the kind {manifest['apiVersion']}"
        )
    elif status == _FORBIDDEN:
        works = "Give the account the role in docs/KUBERNETES.md"
    return LaunchError(f"{what} in namespace {launcher.namespace} was refused: {message}. {works}")


def is_quota(message: str) -> bool:
    """Whether the API server, or a controller, says so of a quota."""
    return re.search(r"exceeded quota", message) is not None
