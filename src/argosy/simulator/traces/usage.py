"""What Argosy itself recorded, as a trace: `argosy usage --records N --json`, or the records.

A record knows receipt, tenant, tier, model and tokens; of refused requests and of those that never
reached an engine it knows no tokens. They are left out, and `found` says how many of each outcome.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from argosy.fleet.messages import Usage
from argosy.policies.admission.work import RANKS
from argosy.simulator.traces.files import TraceFile, check_rows
from argosy.simulator.traces.transforms import NAMES_MAX
from argosy.simulator.traces.window import UNNAMED, Trace, TraceError, window_of


def read_usage(file: TraceFile) -> Trace:
    """A file that holds a JSON array of records or one a line, in any order; all is held."""
    data = b"".join(block.data for block in file.blocks())
    if data.lstrip().startswith(b"["):
        try:
            records = msgspec.json.decode(data, type=list[Usage])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TraceError(
                f"{file.name}: {error}; `argosy usage --records N --json` prints what is read here"
            ) from error
        return usage_trace(records, name=file.name)
    decoder = msgspec.json.Decoder(Usage)
    records = []
    for block in file.blocks():
        for index, line in enumerate(block.lines()):
            try:
                records += [decoder.decode(line)] if line.strip() else []
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise block.refusal(index, f"{error}.") from error
    return usage_trace(records, name=file.name)


def usage_trace(records: Sequence[Usage], *, name: str = "usage records") -> Trace:
    """Requests as they were received, whoever answered them and however they ended.

    An answer of no token (an embedding, a client that left) counts as one: prefill makes one.
    """
    known = sorted(
        (one for one in records if one.model is not None and one.tokens_in != 0),
        key=lambda one: (one.at_s, one.request),
    )
    left_out = Counter(one.outcome for one in records if one.model is None or one.tokens_in == 0)
    said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(left_out.items()))
    found = f"{name}: {len(known)} usage records"
    found += f"; left out, for their tokens are not known: {said}" if said else ""
    if not known:
        raise TraceError(f"{found}; a trace has at least one request with known tokens")
    models = tuple(dict.fromkeys(one.model or UNNAMED for one in known))
    tenants = tuple(dict.fromkeys(one.tenant or UNNAMED for one in known))
    for kind, names in (("models", models), ("tenants", tenants)):
        if len(names) > NAMES_MAX:
            raise TraceError(f"{found}: {len(names)} {kind}; {NAMES_MAX} is the most")
    model_of = {model: place for place, model in enumerate(models)}
    tenant_of = {tenant: place for place, tenant in enumerate(tenants)}
    starts_at_s = known[0].at_s
    columns = {
        "arrival_s": np.array([one.at_s for one in known]) - starts_at_s,
        "prompt_tokens": np.array([one.tokens_in for one in known], np.int64),
        "output_tokens": np.array([one.tokens_out or 1 for one in known], np.int64),
    }

    def refusal(index: int, wrong: str) -> TraceError:
        return TraceError(f"{name}: record {known[index].request}: {wrong}")

    check_rows(refusal, columns, after_s=None)  # type: ignore[arg-type]
    window = window_of(
        {
            **columns,
            "model": np.array([model_of[one.model or UNNAMED] for one in known]),
            "tenant": np.array([tenant_of[one.tenant or UNNAMED] for one in known]),
            "tier": np.array([RANKS[one.tier or "consumer"] for one in known]),
        },
        rows=len(known),
    )
    return Trace(
        pieces=lambda: iter([window]),
        found=found,
        models=models,
        tenants=tenants,
        starts_at_s=starts_at_s,
    )
