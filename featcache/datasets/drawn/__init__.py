"""Drawn dogs for tests, demos and benchmarks: any number of breeds and images from a seed."""
