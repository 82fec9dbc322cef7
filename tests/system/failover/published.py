"""How others did on the public bench, as data, to be printed beside ours.

Failover Bench, scorecard of 2026-09-12, profile full, methodology v0.1, Saksham Kumar,
CC BY 4.0: https://github.com/failoverbench/failoverbench, results/full/SCORECARD.md
"""

from tests.system.failover.grade import Grade

_SYSTEMS = (
    "reference client",
    "DeepSeek Harness",
    "Portkey",
    "Bifrost 2.1.1",
    "LiteLLM proxy",
    "LangChain",
    "openai-python",
    "no gateway",
)
_GRADES = """
S01  pass  partial  pass     partial  pass     pass     pass  safe
S02  pass  pass     pass     pass     pass     pass     safe  safe
S03  pass  partial  pass     pass     pass     pass     pass  safe
S04  pass  pass     pass     pass     pass     pass     safe  safe
S05  pass  pass     pass     pass     pass     pass     pass  safe
S06  pass  pass     pass     fail     partial  partial  safe  safe
S07  pass  partial  partial  partial  partial  partial  pass  pass
S08  pass  pass     fail     safe     safe     safe     safe  safe
S09  pass  pass     fail     safe     safe     safe     safe  safe
S10  pass  safe     pass     pass     safe     safe     safe  pass
S11  pass  pass     pass     pass     pass     pass     pass  pass
S12  pass  pass     pass     pass     pass     pass     safe  safe
S13  pass  pass     partial  partial  partial  partial  pass  pass
S14  pass  pass     fail     safe     safe     safe     safe  safe
S15  pass  pass     pass     pass     pass     pass     safe  safe
S16  pass  pass     pass     pass     pass     pass     safe  safe
"""
_ROWS = [line.split() for line in _GRADES.strip().splitlines()]

# System to scenario to grade.
PUBLISHED: dict[str, dict[str, Grade]] = {
    system: {row[0]: row[column] for row in _ROWS}  # type: ignore[misc]
    for column, system in enumerate(_SYSTEMS, start=1)
}
