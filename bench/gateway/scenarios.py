"""What is asked of every gateway: size, how many at once, how often."""

from dataclasses import dataclass

KB = 1000


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One kind of load. Closed loop unless `rate_per_s` is given."""

    name: str
    what: str
    size: int  # bytes of a request's body
    connections: int
    events: int | None = None  # tokens of a stream; None: a whole answer
    pace_s: float = 0.0  # between two events; 0: all at once
    rate_per_s: float | None = None  # open loop: asked at this rate, whatever is answered

    @property
    def unit(self) -> str:
        """What its work is counted in."""
        return "events" if self.events else "requests"

    @property
    def ramp_s(self) -> float:
        """Streams begin spread over one stream's length, so that their events do not march."""
        return (self.events or 0) * self.pace_s


ALL = (
    Scenario(name="whole", what="whole answers, 365 B bodies, 64 connections",
             size=365, connections=64),
    Scenario(name="whole-1k", what="whole answers, 1 KB bodies, 64 connections",
             size=KB, connections=64),
    Scenario(name="whole-8k", what="whole answers, 8 KB bodies, 64 connections",
             size=8 * KB, connections=64),
    Scenario(name="whole-100k", what="whole answers, 100 KB bodies, 64 connections",
             size=100 * KB, connections=64),
    Scenario(name="stream", what="100 streams of 64 events, one every 20 ms",
             size=365, connections=100, events=64, pace_s=0.020),
    Scenario(name="burst", what="100 streams of 64 events, all at once",
             size=365, connections=100, events=64),
    Scenario(name="stream-1000", what="1,000 streams of 64 events, one every 100 ms",
             size=365, connections=1000, events=64, pace_s=0.100),
    Scenario(name="low", what="100 whole answers a second, open loop",
             size=365, connections=64, rate_per_s=100),
    Scenario(name="low-stream", what="20 streams of 16 events at 20 ms a second, open loop",
             size=365, connections=64, events=16, pace_s=0.020, rate_per_s=20),
)  # fmt: skip
BY_NAME = {scenario.name: scenario for scenario in ALL}
