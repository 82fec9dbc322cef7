"""Text that is English enough to be about 1 token a word, seeded, and never twice the same."""

import random

_WORDS = (
    "ship storm harbour light water wind morning people house road letter winter garden stone "
    "river bridge market bread table window story child teacher number animal forest summer "
    "paper music colour island train doctor village silver engine field corner answer moment"
)
_LINKS = "the a near with under and before from every some after like between of to in on"


def words(chance: random.Random, count: int) -> str:
    """So many words."""
    nouns, links = _WORDS.split(), _LINKS.split()
    return " ".join(chance.choice(nouns if place % 2 else links) for place in range(count))
