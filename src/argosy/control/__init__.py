"""The control plane: observe the replicas, decide by policies, act through launchers, publish.

Belongs here: loops that hold reality against what the fleet file wants. Does not: the decisions
themselves (`policies`), how a process is started (`launchers`), requests; the gateway and this
room do not know each other, they share the replica table. Read `controller.py`, then
`reconcile.py`; of several control planes, `leading.py`.
"""
