"""`argosy check`: reads a fleet, run or recipe file, says its problems, or what it describes.

Owns the summary; what makes a file valid is decided in `fleet/load.py` and `fleet/load_runs.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from argosy.cli.files import first_key, read_fleet, read_recipe, read_run
from argosy.cli.renting import rents
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.launchers import (
    EndpointLauncher,
    KubernetesLauncher,
    PlannedLauncher,
    RayLauncher,
    SkypilotLauncher,
)
from argosy.fleet.runs import NewModel, Run

if TYPE_CHECKING:
    from argosy.training.data.recipe import Recipe


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The fleet, run or recipe file.")],
) -> None:
    """Check a fleet or run file; print what it describes, or every problem with its line.

    Try:

        argosy check examples/embedded.yaml

        argosy check examples/two-islands.yaml
    """
    kind = first_key(file)
    if kind == "run":
        typer.echo(f"{file} is valid.\n\n{_run_summary(read_run(file))}")
        return
    if kind == "corpus":
        typer.echo(f"{file} is valid.\n\n{_recipe_summary(read_recipe(file))}")
        return
    fleet = read_fleet(file)
    typer.echo(f"{file} is valid.\n\n{_summary(fleet)}")


def _summary(fleet: Fleet) -> str:
    gateway = fleet.gateway
    head = [
        ("FLEET", fleet.fleet),
        ("GATEWAY", f"{gateway.host} port {gateway.port}, keys {gateway.keys}"),
    ]
    tables = [head, _pools(fleet), _models(fleet), _deployments(fleet), _tenants(fleet)]
    spent = "\n".join(rents(fleet))
    return "\n\n".join([*(_table(rows) for rows in tables), *([spent] if spent else [])])


def _run_summary(run: Run) -> str:
    model, outer = run.model, run.outer
    if isinstance(model, NewModel):
        kind = f"new, {model.layers} layers, width {model.hidden}, {model.heads} heads"
    else:
        kind = f"from {model.path}"
    step = run.batch_blocks * run.context_tokens
    head = [
        ("RUN", run.run),
        ("MODEL", kind),
        ("DATA", run.data.path),
        ("TOKENS", f"{run.blocks * run.context_tokens:,} in steps of {step:,}"),
        ("BETWEEN", f"a delta each {outer.inner_steps} steps, {outer.bits} bits a value"),
    ]
    rows = [("ISLAND", "WHERE", "DEVICE", "PROCESSES", "DTYPE")]
    for one in run.islands:
        where = one.pool or "this machine"
        rows.append((one.name, where, one.device, str(one.processes), one.dtype))
    return "\n\n".join(_table(rows) for rows in (head, rows))


def _recipe_summary(recipe: "Recipe") -> str:
    head = [("CORPUS", recipe.corpus), ("BLOCKS", f"of {recipe.context_tokens} tokens")]
    sources = [(o.name, str(o.__struct_config__.tag), o.licence) for o in recipe.sources]
    rows = [("SOURCE", "KIND", "LICENCE"), *sources]
    return "\n\n".join(_table(table) for table in (head, rows))


def _pools(fleet: Fleet) -> list[tuple[str, ...]]:
    rows = [("POOL", "LAUNCHER", "WHERE")]
    for pool in fleet.pools:
        match pool.launcher:
            case EndpointLauncher(url=url):
                rows.append((pool.name, "endpoint", url))
            case PlannedLauncher():
                rows.append((pool.name, "planned", _chips(pool)))
            case RayLauncher(address=address):
                rows.append((pool.name, "ray", f"{_chips(pool)}, {address}"))
            case KubernetesLauncher(context=context, namespace=namespace):
                where = f"{_chips(pool)}, {context or 'the current context'}, {namespace}"
                rows.append((pool.name, "kubernetes", where))
            case SkypilotLauncher(api=api):
                rows.append((pool.name, "skypilot", f"{_chips(pool)}, rented by {api}"))
            case _:
                rows.append((pool.name, "local", "-"))
    return rows


def _chips(pool: Pool) -> str:
    """What it holds at most, and where."""
    if pool.chip is None:
        return f"{pool.nodes.max} nodes, {pool.region}"
    return f"{pool.nodes.max * pool.nodes.chips_per_node} x {pool.chip}, {pool.region}"


def _models(fleet: Fleet) -> list[tuple[str, ...]]:
    return [("MODEL", "WEIGHTS"), *((model.name, model.weights or "-") for model in fleet.models)]


def _deployments(fleet: Fleet) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("DEPLOYMENT", "ENGINE", "REPLICAS", "CONTEXT")]
    for deployment in fleet.deployments:
        engine = deployment.engine
        tokens = "-" if engine.context_tokens is None else f"{engine.context_tokens} tokens"
        kind = str(engine.__struct_config__.tag)
        rows.append((deployment.name, kind, str(deployment.replicas), tokens))
    return rows


def _tenants(fleet: Fleet) -> list[tuple[str, ...]]:
    return [("TENANT", "TIER"), *((tenant.name, tenant.tier) for tenant in fleet.tenants)]


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
