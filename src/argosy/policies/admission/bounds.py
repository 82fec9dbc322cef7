"""How many tokens a request can use at most, and will probably: known before it runs.

The most is reserved of a budget; what is probable is what the fair queue weighs.
"""

ANSWER_TOKENS_ASSUMED = 4096  # where nobody sets a limit to an answer
BYTES_PER_TOKEN = 4  # of English: the gateway has no tokenizer
ANSWER_TOKENS_PREDICTED = 256  # of a request without a limit, or with one that is rarely reached


def reservation_tokens(
    body_bytes: int,
    *,
    max_tokens: int | None,
    context_tokens: int | None,
    sampling_max_tokens: int | None = None,
    answers: int = 1,
) -> int:
    """The most that prompt and answers together can count, never less than 1.

    A prompt has at most as many tokens as its body has bytes: every token of a byte-level
    vocabulary covers at least one byte of text, and JSON's own bytes (27 around a chat message)
    exceed what a template writes around it (5, say). `body_bytes` is of the body with everything
    that the gateway adds, a model's system prompt say. It does not hold for images by URL.

    An answer is limited by the request (`max_tokens`), else by the model's sampling, and always
    by the context, which prompt and answer share. `answers` are choices times prompts; 0-token
    answers (embeddings) are `max_tokens=0`.

    Where no limit is known the answer is taken to be `ANSWER_TOKENS_ASSUMED` long. That is a
    bound only if the gateway sends the same number on as the request's `max_tokens`.
    """
    limits = [limit for limit in (max_tokens, context_tokens) if limit is not None]
    if max_tokens is None and sampling_max_tokens is not None:
        limits.append(sampling_max_tokens)
    answer_tokens = min(limits, default=ANSWER_TOKENS_ASSUMED)
    tokens = body_bytes + answers * answer_tokens
    if context_tokens is not None:
        tokens = min(tokens, answers * context_tokens)
    return max(1, tokens)


def cost_predicted_tokens(body_bytes: int, answer_tokens_max: int) -> int:
    """What a request is charged until it is known what it used.

    `answer_tokens_max`: as the request limits its answer, `ANSWER_TOKENS_PREDICTED` if it does not.
    """
    return body_bytes // BYTES_PER_TOKEN + min(answer_tokens_max, ANSWER_TOKENS_PREDICTED)
