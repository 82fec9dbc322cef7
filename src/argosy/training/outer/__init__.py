"""The arithmetic between islands: fragments, codec, the outer step, what an island takes up.

Belongs here: pure functions on vectors of fp32 values, the same bits on every machine. Does not:
who is waited for and what counts how much (`policies/elasticity`), files, the network, time. Read
`parameters.py`, `codec.py`, then `step.py` (the syncer's side) and `adopt.py` (an island's).
"""
