"""The gateway beside its peers: what one core of each carries, measured in the same minutes.

Read `measure.py` first (what is counted), then `scenarios.py` (what is asked) and `peers.py` (who
is asked). `upstream.py` answers, `load.py` asks, `report.py` prints. What the gateway costs beside
a real engine is not here: `bench/gateway_overhead.py` has it.
"""
