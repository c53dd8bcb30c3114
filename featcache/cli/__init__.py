"""The command line `featcache`: one module per group of commands.

It defines the commands, their options, what they print and their exit status. The work is done
by the functions of the Python API.
"""

from .main import featcache, main

__all__ = ["featcache", "main"]
