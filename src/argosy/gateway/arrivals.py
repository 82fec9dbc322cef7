"""What comes for one model and what is answered of it, counted for the autoscaling policy.

On the path of every request, so these are plain numbers of an object with slots: 0.2 us a request
and its answer, where a Struct's took 0.6 (2026-11-21). A Struct is made of them when somebody asks,
and what the bytes are in tokens is worked out by who adds up.
"""

from argosy.fleet.config import Tier
from argosy.fleet.messages import Usage
from argosy.observability.counts import Asked


class Arrivals:
    """Of one model, in one gateway process."""

    __slots__ = (
        "answers",
        "batch_bytes",
        "batch_requests",
        "output_tokens",
        "prompt_bytes",
        "read_bytes",
        "read_tokens",
        "requests",
    )

    def __init__(self) -> None:
        self.requests = self.prompt_bytes = 0
        self.batch_requests = self.batch_bytes = 0
        self.answers = self.output_tokens = 0
        self.read_bytes = self.read_tokens = 0

    def came(self, tier: Tier, body_bytes: int) -> None:
        """A request, of so many bytes."""
        if tier == "batch":
            self.batch_requests += 1
            self.batch_bytes += body_bytes
        else:
            self.requests += 1
            self.prompt_bytes += body_bytes

    def answered(self, usage: Usage, body_bytes: int) -> None:
        """One that had so many bytes has ended well."""
        self.answers += 1
        self.output_tokens += usage.tokens_out
        tokens = usage.tokens_in
        if tokens:  # else its engine does not say
            self.read_bytes += body_bytes
            self.read_tokens += tokens

    def counts(self) -> Asked:
        """All of it until now."""
        return Asked(
            requests=self.requests,
            prompt_bytes=self.prompt_bytes,
            batch_requests=self.batch_requests,
            batch_prompt_bytes=self.batch_bytes,
            answered=self.answers,
            output_tokens=self.output_tokens,
            read_bytes=self.read_bytes,
            read_tokens=self.read_tokens,
        )
