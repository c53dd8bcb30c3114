"""What importing costs, and that every public name is there.

Which room may import which is a contract of import-linter, in setup.cfg.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_loads_nothing_heavy() -> None:
    heavy = ["tensorflow", "keras", "h5py", "sklearn", "lightgbm", "pandas", "PIL", "numpy"]
    code = f"import sys, featcache; print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


def test_heads_load_nothing_that_reads_images_or_stores() -> None:
    heavy = ["tensorflow", "keras", "h5py", "lightgbm", "PIL", "featcache.store"]
    code = f"import sys, heads; print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


def test_a_full_hit_imports_no_keras_and_nothing_that_draws_or_downloads(photos: Path) -> None:
    from featcache import extract

    extract("mobilenet", photos, weights="random", image_size=32)
    heavy = ["tensorflow", "keras", "joblib", "asyncio", "tarfile", "xml"]
    code = (
        "import sys, featcache, numpy\n"
        f"f = featcache.extract('mobilenet', {str(photos)!r}, weights='random', image_size=32)\n"
        "numpy.asarray(f.X)\n"
        f"print(f.summary.computed, [m for m in {heavy} if m in sys.modules])"
    )
    assert run(code) == "0 []"


def test_a_default_layer_asked_for_by_its_name_imports_no_keras_either(photos: Path) -> None:
    from featcache import extract

    layer = extract("mobilenet", photos, weights="random", image_size=32).spec.layer
    options = f"weights='random', image_size=32, layer={layer!r}"
    code = (
        "import sys, featcache\n"
        f"f = featcache.extract('mobilenet', {str(photos)!r}, {options})\n"
        "print(f.summary.computed, 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    assert run(code) == "0 False False"


def test_every_public_name_is_there() -> None:
    import bench
    import featcache
    import heads
    from featcache import toolkit

    for package in (featcache, heads, bench, toolkit):
        assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError):
        featcache.nonsense  # noqa: B018
