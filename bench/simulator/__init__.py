"""How fast engines are simulated, ours and our peers': python -m bench.simulator."""
