"""How a replica speaks: one adapter an engine, behind the port of `port.py`.

Belongs here: what an engine's server accepts, answers and gets wrong; the programs that run
inside a replica; where weights come from. Does not: choosing a replica, starting a process.
Read `port.py` first.
"""
