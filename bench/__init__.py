"""Benchmarks for a person to run: `make bench`. Ratios, interleaved; never part of the tests."""
