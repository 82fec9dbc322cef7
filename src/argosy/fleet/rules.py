"""What relates two places of a fleet: names that must exist, parts that must fit together.

Owns these rules, what is a loopback host and how weights are written. Each rule may trust every
single value's type, which `shape.py` has checked; the lines of its findings are `document.py`'s.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from argosy.fleet.config import EndpointEngine, Fleet, LlamaCppEngine
from argosy.fleet.document import Path, did_you_mean, printable
from argosy.fleet.rules_contracts import CONTRACT_RULES
from argosy.fleet.rules_launched import LAUNCHED_RULES
from argosy.fleet.rules_planned import PLANNED_RULES

_Finding: TypeAlias = tuple[Path, str]  # where, and the rest of the sentence

PYPI_WEIGHTS = re.compile(
    r"pypi:(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.+!]+)"
)
_FILE_WEIGHTS = re.compile(r"file:\S.*")
_ENGINES_OF = {
    "local": ("llama.cpp", "simulated"),
    "endpoint": ("endpoint",),
    "planned": ("vllm", "sglang", "trtllm"),
    "ray": ("vllm", "sglang", "llama.cpp", "simulated"),
    "kubernetes": ("vllm", "sglang"),
    "skypilot": ("vllm", "sglang"),
}
_WEIGHTS = "Write weights: pypi:PACKAGE==VERSION or weights: file:PATH"


def cross_check(fleet: Fleet) -> Iterator[_Finding]:
    """What no single value shows: each rule's findings, as a path and the rest of the sentence."""
    for rule in _RULES:
        yield from rule(fleet)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`: 127.0.0.0/8, ::1 or localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _duplicate_names(fleet: Fleet) -> Iterator[_Finding]:
    for section in ("pools", "models", "deployments", "tenants"):
        seen: set[str] = set()
        for index, item in enumerate(getattr(fleet, section)):
            if item.name in seen:
                yield (section, index), f'is a second "{item.name}". Rename or remove one of them.'
            seen.add(item.name)


def _unknown_names(fleet: Fleet) -> Iterator[_Finding]:
    for noun, known in (("model", fleet.models), ("pool", fleet.pools)):
        names = [item.name for item in known]
        for index, deployment in enumerate(fleet.deployments):
            asked = str(getattr(deployment, noun))
            if asked not in names:
                told = f'= "{asked}" is not a {noun} of this fleet.'
                yield ("deployments", index, noun), told + did_you_mean(asked, noun, names)


def _odd_fallbacks(fleet: Fleet) -> Iterator[_Finding]:
    names = [model.name for model in fleet.models]
    for index, model in enumerate(fleet.models):
        for position, asked in enumerate(model.fallback):
            at = ("models", index, "fallback", position)
            if asked not in names:
                told = f'= "{asked}" is not a model of this fleet.'
                yield at, told + did_you_mean(asked, "model", names)
            elif asked == model.name or asked in model.fallback[:position]:
                yield at, f'= "{asked}" is tried already. Name other models.'


def _engines_that_do_not_fit(fleet: Fleet) -> Iterator[_Finding]:
    launchers = {pool.name: pool.launcher.__struct_config__.tag for pool in fleet.pools}
    for index, deployment in enumerate(fleet.deployments):
        launcher = launchers.get(deployment.pool)
        engine = str(deployment.engine.__struct_config__.tag)
        if launcher is None or engine in _ENGINES_OF[str(launcher)]:
            continue
        works = "; ".join(f"{name} pools: {', '.join(them)}" for name, them in _ENGINES_OF.items())
        told = f'= "{engine}" does not fit pool {deployment.pool}, whose launcher is {launcher}.'
        yield ("deployments", index, "engine", "kind"), f"{told} What fits: {works}"


def _replicated_endpoints(fleet: Fleet) -> Iterator[_Finding]:
    for index, deployment in enumerate(fleet.deployments):
        if isinstance(deployment.engine, EndpointEngine) and deployment.replicas > 1:
            told = f"= {deployment.replicas}, but an endpoint is one replica and balances itself."
            works = "Set replicas to 1; for more endpoints, add pools."
            yield ("deployments", index, "replicas"), f"{told} {works}"


def _missing_weights(fleet: Fleet) -> Iterator[_Finding]:
    llama = {d.model for d in fleet.deployments if isinstance(d.engine, LlamaCppEngine)}
    for index, model in enumerate(fleet.models):
        if model.weights is None and model.name in llama:
            yield ("models", index), f"lacks weights for llama.cpp. {_WEIGHTS}"


def _odd_weights(fleet: Fleet) -> Iterator[_Finding]:
    for index, model in enumerate(fleet.models):
        asked = model.weights
        if asked is None or PYPI_WEIGHTS.fullmatch(asked) or _FILE_WEIGHTS.fullmatch(asked):
            continue
        told = f"= {printable(asked)} is not where weights come from: no hub is asked."
        yield ("models", index, "weights"), f"{told} {_WEIGHTS}"


def _open_gateway(fleet: Fleet) -> Iterator[_Finding]:
    host = fleet.gateway.host
    if fleet.gateway.keys == "none" and not is_loopback(host):
        told = f'= "none" lets everyone who reaches {printable(host)} use the fleet.'
        yield ("gateway", "keys"), f"{told} Write keys: required, or host: 127.0.0.1"


def _body_sizes(fleet: Fleet) -> Iterator[_Finding]:
    one, all_ = fleet.gateway.body_bytes_max, fleet.gateway.body_bytes_pending_max
    if one > all_:
        told = f"= {one} is more than body_bytes_pending_max = {all_}, the limit of all together."
        yield ("gateway", "body_bytes_max"), f"{told} Lower this one or raise the other."


def _odd_shares(fleet: Fleet) -> Iterator[_Finding]:
    batch, lower = fleet.gateway.batch_share_max, fleet.gateway.consumer_share_max
    if batch > lower:
        told = f"= {batch} is more than consumer_share_max = {lower}, which holds for both tiers."
        yield ("gateway", "batch_share_max"), f"{told} Lower this one or raise the other."


def _odd_budgets(fleet: Fleet) -> Iterator[_Finding]:
    for index, tenant in enumerate(fleet.tenants):
        seen: set[str] = set()
        for position, budget in enumerate(tenant.budgets):
            at = ("tenants", index, "budgets", position)
            if budget.tokens is None and budget.requests is None:
                yield at, f"limits nothing. Write tokens: N, requests: N or both per {budget.per}."
            if budget.per in seen:
                told = f'= "{budget.per}" is a second budget of {tenant.name} for that window.'
                yield (*at, "per"), f"{told} Put tokens and requests into one of them."
            seen.add(budget.per)


def _reservations_of_lower_tiers(fleet: Fleet) -> Iterator[_Finding]:
    for index, tenant in enumerate(fleet.tenants):
        if tenant.reserved_tokens_per_s is not None and tenant.tier != "enterprise":
            at = ("tenants", index, "reserved_tokens_per_s")
            told = f"= {tenant.reserved_tokens_per_s:g}, but {tenant.name} is of the {tenant.tier}"
            yield at, f"{told} tier. Write tier: enterprise, or remove it: a weight fits any tier."


def _idle_models(fleet: Fleet) -> Iterator[_Finding]:
    deployed = {deployment.model for deployment in fleet.deployments}
    for index, model in enumerate(fleet.models):
        if model.name not in deployed:
            told = f'= "{model.name}" has no deployment, so nothing answers for it.'
            yield ("models", index, "name"), f"{told} Add one to deployments, or remove the model."


_RULES: tuple[Callable[[Fleet], Iterator[_Finding]], ...] = (
    _duplicate_names,
    _unknown_names,
    _odd_fallbacks,
    _engines_that_do_not_fit,
    _replicated_endpoints,
    _missing_weights,
    _odd_weights,
    _open_gateway,
    _body_sizes,
    _odd_shares,
    _odd_budgets,
    _reservations_of_lower_tiers,
    _idle_models,
    *PLANNED_RULES,
    *LAUNCHED_RULES,
    *CONTRACT_RULES,
)
