"""Faults on a real Ray cluster under streaming load: what clients see of each.

Four nodes of three makers and a head, real llama.cpp replicas in three pools, two control planes
and a gateway apart from them, one PostgreSQL. `fleet.py` is all of that, `load.py` the clients and
their account, `faults.py` what is broken and when it is whole again, `run.py` puts them together
and prints a table. `docs/RAY.md` has what came of it.
"""
