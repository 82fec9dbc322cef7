"""Replicas on machines that SkyPilot rents: one replica is one cluster of SkyPilot's.

Its API server is spoken to over HTTP; nothing of SkyPilot is imported. `pool.py` is the launcher,
`api.py` asks, `task.py` says what is rented and run, `observing.py` what the answers mean, and
`tending.py` looks after clusters that are up. When to start or end one is the control plane's.
"""
