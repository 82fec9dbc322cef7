"""The fault wall: two scripted upstreams, a real fleet before them, sixteen faults, a scorecard.

Read `scenarios.py` first: the table says what breaks and what is expected. `upstream.py` breaks,
`client.py` asks, `grade.py` judges what both have seen and nothing else, `run.py` puts them
together. `fleet.py` is the one place that names fields of the fleet file.
`docs/FAILOVER.md` says whose faults these are and how others did.
"""
