"""Learning from measurements: physics first, then what it leaves, then how sure that is.

Belongs here: what `argosy calibrate` runs. Does not: anything that a performance answer needs
(`perf` itself, which reads the JSON made here). Read `make.py` first.
"""
