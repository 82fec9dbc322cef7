"""Text to clean text, and whether it is worth keeping.

Rules after Rae et al. 2021 (Gopher), as loose as documentation needs: it repeats itself by nature.
"""

import re
import unicodedata

from argosy.training.data.recipe import Cleaning

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters but tab and newline, marks of byte order and direction, replacements of bytes
# that were lost before, and halves of pairs that UTF-8 cannot hold.
_UNWANTED = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffd"
    r"\ud800-\udfff]"
)
_TRAILING = re.compile(r"[ \t\u00a0]+$", re.MULTILINE)
_MANY_BREAKS = re.compile(r"\n{3,}")
_LETTER = re.compile(r"[^\W\d_]")
_INK = re.compile(r"\S")
_LOOKED_AT = 100_000  # characters of a document that its shares are taken of


def cleaned(text: str) -> str:
    """In Unicode's NFC, with newlines alone, no control characters, no trailing space."""
    text = _UNWANTED.sub("", _LINE_ENDS.sub("\n", text))
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return _MANY_BREAKS.sub("\n\n", _TRAILING.sub("", text)).strip()


def why_dropped(text: str, rules: Cleaning) -> str | None:
    """The reason, or None where the text is worth keeping."""
    if len(text) < rules.characters_min:
        return "too_short"
    sample = text[:_LOOKED_AT]
    if repeated_share(sample) > rules.repeated_lines_share_max:
        return "too_repetitive"
    ink = len(_INK.findall(sample))
    if ink == 0 or len(_LETTER.findall(sample)) < rules.letters_share_min * ink:
        return "too_few_letters"
    return None


def repeated_share(text: str) -> float:
    """Of its characters, those in lines that stood before in it."""
    seen: set[str] = set()
    total = repeated = 0
    for line in map(str.strip, text.split("\n")):
        total += len(line)
        if line in seen:
            repeated += len(line)
        else:
            seen.add(line)
    return repeated / total if total else 0.0
