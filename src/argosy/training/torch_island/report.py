"""What an island's measured seconds come to: tokens/s, MFU, joules and dollars; loads no torch."""

from argosy.training.inner import Figures


def figures(
    *,
    tokens: int,
    seconds: float,
    flops_per_token: float,
    peak_flops: float | None,
    power_w: float | None,
    price_usd_per_hour: float | None,
) -> Figures:
    """Of the whole island: `peak_flops`, `power_w` and the price are of all its chips together.

    `seconds` should hold the waiting too: watts and dollars are paid for it.
    """
    if tokens <= 0 or seconds <= 0:
        raise ValueError(f"{tokens} tokens in {seconds} s: both must be above zero.")
    tokens_per_s = tokens / seconds
    flops_per_s = tokens_per_s * flops_per_token
    per_million_s = 1e6 / tokens_per_s
    return Figures(
        tokens=tokens,
        seconds=seconds,
        tokens_per_s=tokens_per_s,
        flops_per_s=flops_per_s,
        mfu=None if peak_flops is None else flops_per_s / peak_flops,
        energy_j_per_million_tokens=None if power_w is None else power_w * per_million_s,
        cost_usd_per_million_tokens=None
        if price_usd_per_hour is None
        else price_usd_per_hour / 3600 * per_million_s,
    )
