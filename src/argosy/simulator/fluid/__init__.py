"""A fleet's answers to billions of requests: exact short runs, and a fluid between them.

Belongs here: demand as rates over time (`flow.py`), a model's replicas as a small cell that the
exact simulator measures at rising rates (`cell.py`, `probe.py`, `surface.py`), how full each model
is over time (`course.py`), and the sums of both as a `Ran` (`fill.py`). Does not: anything about a
single request, which the exact simulator alone knows. Read `running.py` first.
"""
