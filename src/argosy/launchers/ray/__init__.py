"""Replicas as actors of a Ray cluster: one cluster a pool or a region, never wider.

Ray's driver is synchronous and one a process, so each cluster has a process of its own for it:
`pool.py` is the launcher, `link.py` speaks with that process over pipes in the words of
`protocol.py`, `bridge.py` is the process, `cluster.py` and `replicas.py` what it does with Ray.
On the nodes: `actor.py` is what Ray places, `child.py` the replica's process inside it,
`own_files.py` what it was sent. Only `bridge.py`, `cluster.py`, `replicas.py` and `actor.py` import
Ray. An island of a training run, a program that is no replica, goes the same way. Read `pool.py`
first.
"""
