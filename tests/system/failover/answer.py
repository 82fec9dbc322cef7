"""The one right answer to every question of the wall: sixty tokens, no two alike.

Any text that was lost, doubled or swapped on its way is therefore visible as such.
"""

import re

TOKENS = ("t01", *(f" t{number:02}" for number in range(2, 61)))
ANSWER = "".join(TOKENS)


def rest_after(prefill: str) -> tuple[str, ...]:
    """The tokens after `prefill`; all of them where that is not how the answer begins."""
    if not ANSWER.startswith(prefill):
        return TOKENS
    return tuple(re.findall(r"^[^ ]+| [^ ]*", ANSWER[len(prefill) :]))
