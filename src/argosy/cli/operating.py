"""What an operator asks of a running fleet, and who answers it."""

from collections.abc import Sequence

from msgspec.structs import replace

from argosy.cli.applying import Applier
from argosy.cli.operator_socket import Apply, Asked, Back, Drain, Hold, Lose, OperatorReply
from argosy.cli.pretending import Pretence, PretenceRefusedError
from argosy.control.controller import Controller
from argosy.control.reconcile import Note
from argosy.fleet.config import Pool

_REPLICAS_MAX = 10_000


class Operator:
    """Of one run."""

    def __init__(
        self, applier: Applier, controller: Controller, *, pretence: Pretence | None = None
    ) -> None:
        self._applier = applier
        self._controller = controller
        self._pretence = pretence  # None: the fleet is real

    async def handle(self, asked: Asked) -> OperatorReply:
        """Never raises for what an operator asks."""
        match asked:
            case Apply():
                return await self._applier.apply(asked)
            case Hold():
                return self._hold(asked)
            case Drain():
                return self._drain(asked)
            case Lose() | Back():
                return await self._pretend(asked)

    async def _pretend(self, asked: Lose | Back) -> OperatorReply:
        pretence, fleet = self._pretence, self._applier.fleet
        if pretence is None:
            return _no(
                "the replicas of this run are no pretence: nothing of it is lost or back at a "
                "word. Try it on a simulated fleet: argosy up --pretend"
            )
        try:
            if isinstance(asked, Back):
                pools = pretence.back(fleet, asked.domain)
                told = _started_on(pools, pretence)
                self._controller.note(Note(kind="back", subject=asked.domain, reason=told))
                return _yes(f"{asked.domain} is back: {told}")
            pools, count = await pretence.lose(fleet, asked.domain)
        except PretenceRefusedError as error:
            return _no(str(error))
        ended = "1 replica has ended" if count == 1 else f"{count} replicas have ended"
        told = f"{_named(pools)}; {ended}"
        self._controller.note(Note(kind="lose", subject=asked.domain, reason=f"pretended: {told}"))
        return _yes(
            f"{asked.domain} is lost: {told}. Bring it back: argosy pretend back {asked.domain}"
        )

    def _hold(self, asked: Hold) -> OperatorReply:
        wanted = self._controller.wanted
        if asked.deployment not in wanted:
            return _no(f"{asked.deployment} is no deployment; there are {', '.join(wanted)}")
        if asked.replicas is None:
            self._controller.hold(asked.deployment, None)
            count = self._controller.wanted[asked.deployment].replicas
            return _yes(f"{asked.deployment} is held no more: {count} wanted")
        if wanted[asked.deployment].spec.url is not None and asked.replicas > 1:
            return _no(f"{asked.deployment} is an endpoint: somebody else scales it")
        if asked.replicas > _REPLICAS_MAX:
            return _no(f"{asked.replicas} replicas are more than {_REPLICAS_MAX}")
        before = wanted[asked.deployment].replicas
        self._controller.hold(asked.deployment, asked.replicas)
        return _yes(
            f"{asked.deployment}: {before} -> {asked.replicas} wanted, until: "
            f"argosy scale {asked.deployment} auto"
        )

    def _drain(self, asked: Drain) -> OperatorReply:
        kind = self._kind(asked.name)
        if kind is None:
            return _no(f"{asked.name} is no pool, node or replica of this fleet: argosy status")
        drains = self._controller.drains
        names: frozenset[str] = getattr(drains, kind)
        what = f"{kind[:-1]} {asked.name}"
        if asked.undo:
            if asked.name not in names:
                return _no(f"{what} is not drained")
            self._controller.drain(replace(drains, **{kind: names - {asked.name}}))
            return _yes(f"{what} is used again")
        if kind == "pools" and not asked.is_forced:
            stranded = self._stranded(drains.pools | {asked.name})
            if stranded:
                return _no(
                    f"{', '.join(stranded)} would have no pool left. Deploy it on another one "
                    f"first, or lose it: argosy drain {asked.name} --force"
                )
        self._controller.drain(replace(drains, **{kind: names | {asked.name}}))
        count = self._count(kind, asked.name)
        return _yes(f"{what} is drained: {count} go when others are ready in their place")

    def _kind(self, name: str) -> str | None:
        controller = self._controller
        pools = {plan.spec.pool for plan in controller.wanted.values()}
        if name in pools | controller.drains.pools:
            return "pools"
        if name in controller.records:
            return "replicas"
        nodes = {node.name for _, node in controller.watcher.nodes()}
        return "nodes" if name in nodes | controller.drains.nodes else None

    def _stranded(self, drained: frozenset[str]) -> list[str]:
        """Models whose every pool is drained."""
        plans = self._controller.wanted.values()
        kept = {plan.spec.model for plan in plans if plan.spec.pool not in drained}
        return sorted({plan.spec.model for plan in plans} - kept)

    def _count(self, kind: str, name: str) -> str:
        rows = self._controller.table.replicas
        count = sum(
            name == {"pools": row.pool, "nodes": row.node, "replicas": row.name}[kind]
            for row in rows
        )
        return "1 replica" if count == 1 else f"{count} replicas"


def _named(pools: Sequence[Pool]) -> str:
    names = ", ".join(pool.name for pool in pools)
    return f"pool {names}" if len(pools) == 1 else f"pools {names}"


def _started_on(pools: Sequence[Pool], pretence: Pretence) -> str:
    if pools:
        return f"{_named(pools)} can be started on again"
    return f"but all of its pools are lost with {', '.join(sorted(pretence.lost))} as well"


def _yes(said: str) -> OperatorReply:
    return OperatorReply(done=True, said=said)


def _no(said: str) -> OperatorReply:
    return OperatorReply(done=False, said=said)
