"""Drawn dogs for tests, demos and benchmarks: any number of breeds and images from a seed.

`breeds` draws the traits of each breed, `drawing` the image of one dog, and `dogs` writes folders
of them. Used by `datasets`, and by the tools of `bench` that train `pocket`.
"""
