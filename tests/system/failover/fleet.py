"""The fleet before the wall, and the one place that names its fields."""

_FAILOVER = "ttft_timeout_s: {ttft_timeout_s}, stall_timeout_s: {stall_timeout_s}, "
_FLEET = """\
fleet: fault-wall
gateway: {{keys: none, {limits}attempts_max: 3}}  # two retries: the public bench's baseline
pools:
  - {{name: here, launcher: {{kind: endpoint, url: "{primary_url}"}}}}
  - {{name: there, launcher: {{kind: endpoint, url: "{backup_url}"}}}}
models:
  - {{name: primary{fallback}}}
  - {{name: backup}}
deployments:
  - {{model: primary, pool: here, engine: {{kind: endpoint, continuation: trailing}}}}
  - {{model: backup, pool: there, engine: {{kind: endpoint, continuation: trailing}}}}
"""


def fleet_file(
    *, primary_url: str, backup_url: str, ttft_timeout_s: float, stall_timeout_s: float
) -> str:
    """Two endpoints; `primary` falls back to `backup`, and neither may be silent for long."""
    limits = _FAILOVER.format(ttft_timeout_s=ttft_timeout_s, stall_timeout_s=stall_timeout_s)
    return _FLEET.format(
        primary_url=primary_url,
        backup_url=backup_url,
        limits=limits,
        fallback=", fallback: [backup]",
    )


def control_file(*, primary_url: str, backup_url: str) -> str:
    """The same two endpoints with nowhere to go and no limits: what the rest is compared to."""
    return _FLEET.format(primary_url=primary_url, backup_url=backup_url, limits="", fallback="")
