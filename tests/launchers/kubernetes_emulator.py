"""A small Kubernetes in memory, spoken to over real HTTP: an API server, controllers, a kubelet.

What the launcher relies on, and no more: lists with label selectors and versions, watches (from a
version, that drop and expire), server-side apply, merge patches of nodes, deletions with grace and
in the foreground; pods for Deployments and LeaderWorkerSets; pods that start, listen, crash, take
their time to end and are lost with their node. It checks no schema.
"""

import asyncio
import contextlib
import copy
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.launchers.conformance import TIDIES_S

Obj = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name

KINDS = {
    "pods": ("v1", "Pod"),
    "nodes": ("v1", "Node"),
    "deployments": ("apps/v1", "Deployment"),
    "leaderworkersets": ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
    "resourceclaimtemplates": ("resource.k8s.io/v1", "ResourceClaimTemplate"),
}
TICK_S = 0.01
END_S = {"tidy": TIDIES_S, "stubborn": 1e9}  # what engines take to end, once asked


class Emulator:
    """`port` is stable over restarts; attributes are knobs of the tests."""

    def __init__(self) -> None:
        self.port = 0
        self.objects: dict[Key, Obj] = {}
        self.version = 100
        self.log: list[tuple[int, str, Obj]] = []  # version, type, object
        self.compacted = 0  # what changed up to there is forgotten
        self.expires_by_event = False  # 410 as an event of a stream, else as the answer's status
        self.refusals: list[tuple[str, str, int, str]] = []  # method, part of path, status, words
        self.pods_quota: str | None = None  # what a controller is told when it makes a pod
        self.end_s = 0.03  # how long an engine takes to end when asked
        self.tokens: list[str] = []  # that each request came with
        self.has_groups = True  # the LeaderWorkerSet kind is installed
        self.pods_listen = True
        self._streams: set[asyncio.Event] = set()
        self._changed = asyncio.Event()
        self._server: uvicorn.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._names = 0

    # -- what tests do to it -------------------------------------------------------------------

    async def begin(self) -> None:
        config = uvicorn.Config(
            self._app(), host="127.0.0.1", port=self.port, log_level="critical", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._tasks = [
            asyncio.create_task(self._server.serve()),
            asyncio.create_task(self._control()),
        ]
        while not self._server.started:
            await asyncio.sleep(TICK_S)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    async def end(self) -> None:
        assert self._server is not None
        self.drop_watches()
        self._server.should_exit = self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        serving, control = self._tasks
        control.cancel()
        await asyncio.gather(serving, control, return_exceptions=True)

    def drop_watches(self) -> None:
        for stream in self._streams:
            stream.set()

    def forget_history(self) -> None:
        """Watches end, and cannot go on from where they were."""
        self.version += 1
        self.compacted = self.version
        self.log.clear()
        self.drop_watches()

    def put(self, plural: str, obj: Obj, namespace: str = "") -> Obj:
        api, kind = KINDS[plural]
        obj = copy.deepcopy({"apiVersion": api, "kind": kind, **obj})
        key = (plural, namespace, obj["metadata"]["name"])
        obj["metadata"].setdefault("creationTimestamp", "2026-11-21T00:00:00Z")
        if namespace:
            obj["metadata"]["namespace"] = namespace
        self._store(key, obj)
        return obj

    def node(self, name: str, *, ready: str = "True", chips: int = 8, **labels: str) -> None:
        key = ("nodes", "", name)
        before = self.objects.get(key, {"metadata": {"name": name}, "spec": {}})
        before["metadata"]["labels"] = labels or before["metadata"].get("labels", {})
        before["status"] = {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"nvidia.com/gpu": str(chips), "cpu": "96"},
        }
        self.put("nodes", before)

    def pods(self, namespace: str = "argosy") -> list[Obj]:
        return [one for key, one in self.objects.items() if key[:2] == ("pods", namespace)]

    def named(self, plural: str, namespace: str = "argosy") -> list[str]:
        return [key[2] for key in self.objects if key[:2] == (plural, namespace)]

    def set_status(self, pod: Obj, **status: Any) -> None:
        pod["status"] = {**pod.get("status", {}), **status}
        self._store(("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]), pod)

    # -- the API -------------------------------------------------------------------------------

    def _app(self) -> Starlette:
        methods = ["GET", "PATCH", "DELETE", "POST"]
        routes = [
            Route(f"{root}{middle}/{{plural}}{end}", self._answer, methods=methods)
            for root in ("/api/v1", "/apis/{group}/{version}")
            for middle in ("/namespaces/{namespace}", "")
            for end in ("/{name}", "")
        ]
        return Starlette(routes=routes)

    async def _answer(self, request: Request) -> Response:
        self.tokens.append(request.headers.get("authorization", ""))
        for index, (method, part, status, words) in enumerate(self.refusals):
            if method == request.method and part in str(request.url):
                del self.refusals[index]
                return refusal(status, words)
        where = request.path_params
        plural = where["plural"]
        if plural == "leaderworkersets" and not self.has_groups:
            return Response("404 page not found", status_code=404, media_type="text/plain")
        key = (plural, where.get("namespace", ""), where.get("name", ""))
        match request.method:
            case "GET" if request.query_params.get("watch"):
                return self._watch(request, key)
            case "GET" if key[2]:
                found = self.objects.get(key)
                return refusal(404, f"{key[2]} not found") if found is None else JSONResponse(found)
            case "GET":
                return self._list(request, key)
            case "PATCH":
                return self._patch(request, key, json.loads(await request.body()))
            case _:
                return self._delete(request, key)

    def _list(self, request: Request, key: Key) -> Response:
        found = [
            one
            for at, one in self.objects.items()
            if at[:2] == key[:2] and selected(one, request.query_params.get("labelSelector"))
        ]
        first = int(request.query_params.get("continue") or 0)
        limit = int(request.query_params.get("limit") or 0) or len(found)
        about: Obj = {"resourceVersion": str(self.version)}
        if first + limit < len(found):
            about["continue"] = str(first + limit)
        return JSONResponse({"metadata": about, "items": found[first : first + limit]})

    def _watch(self, request: Request, key: Key) -> Response:
        since = int(request.query_params.get("resourceVersion") or self.version)
        labels = request.query_params.get("labelSelector")
        if since < self.compacted and not self.expires_by_event:
            return refusal(410, "too old resource version")
        return StreamingResponse(self._events(key, labels, since), media_type="application/json")

    async def _events(self, key: Key, labels: str | None, since: int) -> AsyncIterator[bytes]:
        dropped = asyncio.Event()
        self._streams.add(dropped)
        try:
            while not dropped.is_set():
                if since < self.compacted:
                    yield line("ERROR", status(410, "too old resource version"))
                    return
                for version, kind, obj in list(self.log):
                    at = (plural_of(obj), obj["metadata"].get("namespace", ""))
                    if version > since and at == key[:2] and selected(obj, labels):
                        yield line(kind, obj)
                since = max(since, self.version)
                await asyncio.sleep(TICK_S)
        finally:
            self._streams.discard(dropped)

    def _patch(self, request: Request, key: Key, patch: Obj) -> Response:
        kind = request.headers["content-type"]
        before = self.objects.get(key)
        if kind == "application/apply-patch+yaml":
            assert request.query_params["fieldManager"]
            made = copy.deepcopy(patch)
            made["metadata"].update(uid=f"uid-{key[2]}", namespace=key[1])
            made["metadata"].setdefault("creationTimestamp", "2026-11-21T00:00:00Z")
            if before is not None and "status" in before:
                made["status"] = before["status"]
        elif before is None:
            return refusal(404, f"{key[2]} not found")
        else:
            assert kind == "application/merge-patch+json"
            made = merged(before, patch)
        self._store(key, made)
        return JSONResponse(made)

    def _delete(self, request: Request, key: Key) -> Response:
        found = self.objects.get(key)
        if found is None:
            return refusal(404, f"{key[2]} not found")
        grace = request.query_params.get("gracePeriodSeconds")
        if key[0] == "pods":
            self._end_pod(key, found, None if grace is None else int(grace))
        elif request.query_params.get("propagationPolicy") == "Foreground":
            found["metadata"].setdefault("deletionTimestamp", "2026-11-21T00:00:00Z")
            self._store(key, found)
        else:
            self._remove(key)
        return JSONResponse(status(200, "done", "Success"))

    # -- what is behind it ---------------------------------------------------------------------

    def _store(self, key: Key, obj: Obj) -> None:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.objects[key] = obj
        self.log.append((self.version, kind, copy.deepcopy(obj)))

    def _remove(self, key: Key) -> None:
        self.version += 1
        obj = self.objects.pop(key)
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.log.append((self.version, "DELETED", obj))

    def _end_pod(self, key: Key, pod: Obj, grace: int | None) -> None:
        own = pod["spec"].get("terminationGracePeriodSeconds", 30)
        grace = own if grace is None else grace
        about = pod["metadata"]
        if grace == 0:
            self._remove(key)
            return
        grace = min(grace, about.get("deletionGracePeriodSeconds", grace))  # never longer
        asked = about.setdefault("asked_at", time.monotonic())
        about.setdefault("deletionTimestamp", "2026-11-21T00:00:00Z")
        about["deletionGracePeriodSeconds"] = grace
        about["ends_at"] = asked + min(grace, END_S.get(behaviour_of(pod), self.end_s))
        self._store(key, pod)

    async def _control(self) -> None:
        while True:
            for key, obj in list(self.objects.items()):
                if key[0] == "deployments":
                    self._control_set(key, obj, templates=[obj["spec"]["template"]])
                elif key[0] == "leaderworkersets":
                    group = obj["spec"]["leaderWorkerTemplate"]
                    rest = [group["workerTemplate"]] * (group["size"] - 1)
                    self._control_set(key, obj, templates=[group["leaderTemplate"], *rest])
                elif key[0] == "pods":
                    self._run_pod(key, obj)
            await asyncio.sleep(TICK_S)

    def _control_set(self, key: Key, obj: Obj, *, templates: list[Obj]) -> None:
        mine = [
            (at, pod)
            for at, pod in self.objects.items()
            if at[0] == "pods" and pod["metadata"].get("owner") == [key[0], key[2]]
        ]
        if "deletionTimestamp" in obj["metadata"]:
            for at, pod in mine:
                if "deletionTimestamp" not in pod["metadata"]:
                    self._end_pod(at, pod, None)
            if not mine:
                self._remove(key)
            return
        for rank, template in enumerate(templates):
            ranked = [(at, pod) for at, pod in mine if pod["metadata"]["rank"] == rank]
            alike = [
                pod
                for _, pod in ranked
                if pod["metadata"]["template"] == template
                and "deletionTimestamp" not in pod["metadata"]
                and pod.get("status", {}).get("phase") not in ("Failed",)
            ]
            for at, pod in ranked:  # Recreate: the old one goes first
                is_old = pod["metadata"]["template"] != template
                if is_old and "deletionTimestamp" not in pod["metadata"]:
                    self._end_pod(at, pod, None)
            is_blocked = any(pod["metadata"]["template"] != template for _, pod in ranked)
            if not alike and not is_blocked:
                self._make_pod(key, obj, template, rank=rank)

    def _make_pod(self, key: Key, obj: Obj, template: Obj, *, rank: int) -> None:
        if self.pods_quota is not None:
            conditions = [
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                 "message": self.pods_quota}
            ]  # fmt: skip
            if obj.get("status", {}).get("conditions") != conditions:
                obj["status"] = {"conditions": conditions}
                self._store(key, obj)
            return
        self._names += 1
        about = copy.deepcopy(template["metadata"])
        about.update(
            name=f"{key[2]}-{self._names}", owner=[key[0], key[2]], rank=rank, template=template
        )
        about["creationTimestamp"] = f"2026-11-21T00:00:00.{self._names:06d}Z"
        if key[0] == "leaderworkersets":
            about["labels"]["leaderworkerset.sigs.k8s.io/worker-index"] = str(rank)
        spec = copy.deepcopy(template["spec"])
        self.put("pods", {"metadata": about, "spec": spec, "status": {"phase": "Pending"}}, key[1])

    def _run_pod(self, key: Key, pod: Obj) -> None:
        about, node = pod["metadata"], self._node_of(pod)
        if node is not None and is_lost(node):
            return  # its kubelet is not heard of
        if "ends_at" in about and time.monotonic() >= about["ends_at"]:
            self._remove(key)
        elif pod["status"]["phase"] == "Pending" and "conditions" not in pod["status"]:
            self._place(pod)
        elif pod["status"]["phase"] == "Running" and self.pods_listen:
            self._run_engine(pod, pod["status"]["containerStatuses"][0])

    def _run_engine(self, pod: Obj, container: Obj) -> None:
        behaviour = behaviour_of(pod)
        if behaviour == "ends" and "running" in container["state"]:
            last = {"exitCode": 3, "reason": "Error", "message": "out of luck\n"}
            self.set_status(pod, containerStatuses=[waiting("CrashLoopBackOff", last=last)])
        elif not container["started"] and behaviour not in ("silent", "ends"):
            ready = [{"type": "Ready", "status": "True"}]
            self.set_status(pod, containerStatuses=[running(started=True)], conditions=ready)

    def _place(self, pod: Obj) -> None:
        wanted = pod["spec"].get("nodeSelector", {})
        for at, node in self.objects.items():
            labels = node["metadata"].get("labels", {})
            if at[0] != "nodes" or is_lost(node) or node["spec"].get("unschedulable"):
                continue
            if all(labels.get(name) == value for name, value in wanted.items()):
                pod["spec"]["nodeName"] = at[2]
                self._names += 1
                self.set_status(
                    pod, phase="Running", podIP=f"10.0.0.{self._names}",
                    conditions=[{"type": "Ready", "status": "False", "reason": "Starts"}],
                    containerStatuses=[running(started=False)],
                )  # fmt: skip
                return
        unschedulable = {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        }  # fmt: skip
        self.set_status(pod, conditions=[unschedulable])

    def _node_of(self, pod: Obj) -> Obj | None:
        return self.objects.get(("nodes", "", pod["spec"].get("nodeName", "")))


def behaviour_of(pod: Obj) -> str:
    """What its engine imitates: conformance.py puts it into the generation."""
    annotations = pod["metadata"].get("annotations", {})
    return annotations.get("argosy.dev/generation", "").removeprefix("g-")


def running(*, started: bool, restarts: int = 0) -> Obj:
    return {
        "name": "engine", "image": "", "imageID": "", "ready": started, "restartCount": restarts,
        "started": started, "state": {"running": {}},
    }  # fmt: skip


def waiting(reason: str, message: str = "", *, restarts: int = 0, last: Obj | None = None) -> Obj:
    return {
        "name": "engine", "image": "", "imageID": "", "ready": False, "restartCount": restarts,
        "started": False, "state": {"waiting": {"reason": reason, "message": message}},
        "lastState": {} if last is None else {"terminated": last},
    }  # fmt: skip


def status(code: int, message: str, word: str = "Failure") -> Obj:
    return {"kind": "Status", "apiVersion": "v1", "status": word, "message": message, "code": code}


def refusal(code: int, message: str) -> Response:
    return JSONResponse(status(code, message), status_code=code)


def line(kind: str, obj: Obj) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def selected(obj: Obj, selector: str | None) -> bool:
    labels = obj["metadata"].get("labels", {})
    pairs = (part.split("=", 1) for part in (selector or "").split(",") if part)
    return all(labels.get(name.rstrip("=")) == value.lstrip("=") for name, value in pairs)


def plural_of(obj: Obj) -> str:
    return next(plural for plural, (_, kind) in KINDS.items() if kind == obj["kind"])


def merged(before: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    after = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            after.pop(name, None)
        else:
            after[name] = merged(after.get(name), value)
    return after


def is_lost(node: Obj) -> bool:
    return node["status"]["conditions"][0]["status"] != "True"


@contextlib.asynccontextmanager
async def emulated() -> AsyncIterator[Emulator]:
    emulator = Emulator()
    await emulator.begin()
    try:
        yield emulator
    finally:
        await emulator.end()
