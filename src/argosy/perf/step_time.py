"""What one step of a replica takes: the reduced form in which a model, chip and layout end.

    step_s = linear(tokens) + context_s_per_token x contexts + pair_s x pairs

`tokens` are those that the step computes: one for each request that decodes, and the prompt
tokens that it prefills. `contexts` is the sum, over the requests that decode, of the tokens that
each attends to; `pairs` the same sum over prefilled tokens. `linear` is a broken line through
knots: flat while the weights' bytes bind, rising once the arithmetic does, with a mixture's
experts between. While a batch does not change, `linear` is constant and `contexts` grows by the
batch each step: so k decode steps are an arithmetic series, which the simulator sums exactly.
"""

import msgspec


class StepTime(msgspec.Struct, frozen=True, kw_only=True):
    """Of one replica. All finite and none negative; the knots rise."""

    knots_tokens: tuple[float, ...]  # 1 first; beyond the last the last slope goes on
    knots_s: tuple[float, ...]
    context_s_per_token: float
    pair_s: float

    def linear_s(self, tokens: float) -> float:
        """The part that depends on how many tokens are computed, not on what they attend to."""
        xs, ys = self.knots_tokens, self.knots_s
        if len(xs) == 1 or tokens <= xs[0]:
            return ys[0]
        place = 1
        while place < len(xs) - 1 and xs[place] < tokens:
            place += 1
        slope = (ys[place] - ys[place - 1]) / (xs[place] - xs[place - 1])
        return ys[place - 1] + slope * (tokens - xs[place - 1])

    def step_s(self, *, tokens: float, contexts: float = 0.0, pairs: float = 0.0) -> float:
        """One step, in seconds."""
        attention_s = self.context_s_per_token * contexts + self.pair_s * pairs
        return self.linear_s(tokens) + attention_s
