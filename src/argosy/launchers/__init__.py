"""How a replica is started and stopped: one adapter a launcher, behind the port of `port.py`.

Belongs here: processes, clusters, clouds. Does not: deciding when to start or stop one.
Read `port.py` first.
"""
