"""The command line, `featcache --help`: a module per group of commands.

It owns the names of commands and options, what they print and their exit status. Everything
else is done by the functions that Python code calls as well.
"""

from .main import featcache, main

__all__ = ["featcache", "main"]
