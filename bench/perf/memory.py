"""Peak memory of an extraction does not grow with the number of images: measured.

Draws small images, extracts 1,000 and then 10,000 of them in processes of their own, and
prints the largest resident size of each. `python -m bench.perf.memory --help`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from featcache.datasets import drawn_dogs

_CHILD = """
import json, resource, sys, featcache
features = featcache.extract("mobilenet", sys.argv[1], weights="random", image_size=64,
                             cache_dir=sys.argv[2], progress=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"images": len(features), "peak": peak, "seconds": features.summary.seconds}))
"""


def main() -> int:
    """Run the measurement and print a table."""
    parser = argparse.ArgumentParser(description="peak memory of extraction by number of images")
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000])
    counts = parser.parse_args().images
    print(f"{'images':>8} {'peak MiB':>9} {'seconds':>8}")
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="featcache-memory-") as folder:
            drawn_dogs(10, count // 10, image_size=64, folder=Path(folder) / "dogs", workers=2)
            command = [sys.executable, "-c", _CHILD, f"{folder}/dogs", f"{folder}/cache"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        record = json.loads(done.stdout)
        print(f"{record['images']:>8} {record['peak'] / 2**20:>9.0f} {record['seconds']:>8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
