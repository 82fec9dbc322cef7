"""Benchmarks of the planner: its size, and what it finds beside others."""
