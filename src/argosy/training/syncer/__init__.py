"""The syncer of a run: leases blocks, takes deltas, closes rounds; it may be killed at any time.

Belongs here: the other side of `wire.py`. Does not: the arithmetic (`outer/`), when a round closes
and whom to trust (`policies/elasticity`), the books (`store/run_ledger.py`). Read `desk.py` first:
what it answers and in which order things become durable. `affairs.py` is what it knows, `intake.py`
takes deltas in, `closing.py` closes rounds. `seats.py` knows who lives, `vault.py` keeps bytes,
`versions.py` the parameters; `serving.py` is HTTP, `process.py` the program.
"""
