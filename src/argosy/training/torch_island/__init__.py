"""The inside of an island in PyTorch: one code path for every maker's chip.

Belongs here: the model, its optimizer, ranks that share a step, checkpoints of an island's own, and
what is known of a maker's software. Does not: anything between islands (`outer/`, `syncer/`,
`island/`), reading of data (`data/`). Read `inner.py` first. Importing this package loads no torch;
`shape.py`, `schedule.py` and `report.py` never do.
"""
