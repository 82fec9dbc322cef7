"""Recorded runs of a real engine, replayed through the simulator: `python -m bench.replays`."""
