"""How patient health is: every number that probes and restarts are judged by."""

import msgspec


class HealthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often replicas are asked, how patient we are with them, how fast they are restarted."""

    probe_interval_s: float = 0.5  # from one answer to the next question
    probe_timeout_s: float = 1.0  # interval + timeout: a hang is seen within 1.5 s
    probe_interval_s_starting: float = 0.2  # until the first good probe
    probe_interval_s_endpoint: float = 5.0  # whoever runs an endpoint may bill or limit probes
    probe_timeout_s_endpoint: float = 5.0  # another continent and a TLS handshake on each probe
    probes_failed_suspect: int = 1
    probes_failed_unresponsive: int = 2  # never for one probe: the asker may have been held up
    unresponsive_s: float = 6.0
    start_s_max: float = 600.0  # from the start to the first good probe
    restart_delay_s_first: float = 0.1
    restart_delay_s_max: float = 30.0
    restart_reset_s: float = 60.0  # up for this long: its earlier restarts are forgotten
    crash_restarts: int = 10  # in a row: a crash loop; by then the delay is at its longest
    crash_restarts_slow: int = 3  # in a row that took `crash_s`: one too, where a start is slow
    crash_s: float = 900.0
    probation_s: float = 600.0  # 28 % of repaired nodes fault again within a day: InfiniteHBD trace
    probation_share: float = 0.25  # of the requests that a replica alike takes
    probation_delay_s_first: float = 10.0  # after one fault on probation; then twice as long
    probation_delay_s_max: float = 1800.0
