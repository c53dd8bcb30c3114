"""`python -m featcache` is `featcache`."""

import sys

from .cli import main

sys.exit(main())
