"""Drawn dogs: any number of breeds and pictures from a seed, for tests, demos and benchmarks."""
