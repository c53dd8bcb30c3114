"""Benchmarks of speed and memory: `make bench-perf` and `make bench-dogs-size`."""
