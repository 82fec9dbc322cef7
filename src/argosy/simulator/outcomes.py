"""What became of each request: one record, written by the driver and read by the tally.

A request has exactly one outcome. Every second is virtual; TTFT is what the client sees: the
round trip, the wait at the gateway, the engine's queue and the prompt's reading.
"""

import numpy as np

DONE, SHED, EXPIRED, TOO_LONG, LOST, UNSERVED = 0, 1, 2, 3, 4, 5
OUTCOMES = ("done", "shed", "expired", "too long", "lost", "unserved")
"""shed: the queue was full. expired: no slot in time. too long: fits no replica. lost: its replica
died and none was left to go on. unserved: the simulation ended first."""

RESULT = np.dtype(
    [
        ("arrival_s", "f8"),
        ("ttft_s", "f8"),  # NaN without a first token
        ("end_s", "f8"),
        ("prompt_tokens", "i4"),
        ("output_tokens", "i4"),
        ("model", "i2"),
        ("tier", "i2"),
        ("origin", "i2"),
        ("group", "i2"),  # that answered; -1: none
        ("outcome", "i2"),
        ("attempts", "i2"),  # replicas that it was sent to
        ("waited_s", "f8"),  # at the gateway, for a slot
    ]
)
