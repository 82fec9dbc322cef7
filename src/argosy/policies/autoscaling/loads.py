"""Tokens as load: how many replicas of the model's first deployment a demand keeps busy.

An answer's length is known when it has ended, so arrivals count with the mean of late answers.
"""

import msgspec

from argosy.policies.autoscaling.view import Demand, DeploymentView, ModelView, Sustains

ANSWERS_STEPS = 30  # of history: whose answers make the mean
LATE_STEPS = 10  # of history: whose prompts and answers make the mix


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One request of the late ones, on average."""

    prompt_tokens: float
    output_tokens: float

    def replica_s(self, sustains: Sustains) -> float:
        """For how long it keeps a replica busy."""
        return (
            self.prompt_tokens / sustains.prefill_tokens_per_s
            + self.output_tokens / sustains.decode_tokens_per_s
        )


def work_of(view: ModelView, output_tokens_assumed: float) -> Work:
    """The late requests' mean; of an answer the assumed length until one has ended."""
    history, recent = view.history, view.recent
    answered = sum(history.answered[-ANSWERS_STEPS:]) or sum(recent.answered)
    written = sum(history.output_tokens[-ANSWERS_STEPS:]) or sum(recent.output_tokens)
    came = sum(history.requests[-LATE_STEPS:]) + sum(history.batch_requests[-LATE_STEPS:])
    read = sum(history.prompt_tokens[-LATE_STEPS:]) + sum(history.batch_prompt_tokens[-LATE_STEPS:])
    if not came:
        came = sum(recent.requests) + sum(recent.batch_requests)
        read = sum(recent.prompt_tokens) + sum(recent.batch_prompt_tokens)
    return Work(
        prompt_tokens=read / came if came else 0.0,
        output_tokens=written / answered if answered else output_tokens_assumed,
    )


def load_of(demand: Demand, begin: int, end: int, work: Work, sustains: Sustains) -> float:
    """Of the enterprise and consumer tiers in steps [begin, end), per second."""
    prompt = sum(demand.prompt_tokens[begin:end])
    output = sum(demand.requests[begin:end]) * work.output_tokens
    return _per_s(prompt, output, (end - begin) * demand.step_s, sustains)


def batch_load_of(demand: Demand, begin: int, end: int, work: Work, sustains: Sustains) -> float:
    """The same of the batch tier."""
    prompt = sum(demand.batch_prompt_tokens[begin:end])
    output = sum(demand.batch_requests[begin:end]) * work.output_tokens
    return _per_s(prompt, output, (end - begin) * demand.step_s, sustains)


def _per_s(prompt: float, output: float, seconds: float, sustains: Sustains) -> float:
    if seconds <= 0:
        return 0.0
    busy_s = prompt / sustains.prefill_tokens_per_s + output / sustains.decode_tokens_per_s
    return busy_s / seconds


def capacity_of(deployment: DeploymentView, view: ModelView, work: Work) -> float:
    """Of one of its replicas, in replicas of the first deployment, for such requests."""
    first_s = work.replica_s(view.deployments[0].sustains)
    own_s = work.replica_s(deployment.sustains)
    return first_s / own_s if first_s > 0 and own_s > 0 else 1.0
