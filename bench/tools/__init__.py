"""Programs for maintainers, which make files of the package, such as the weights of `pocket`.

The only part of `bench`, besides its measurements, that uses internals of `featcache`. Nothing
imports it.
"""
