"""What a Jupyter notebook shows: bars, log lines, and no noise of other libraries."""

from __future__ import annotations

import pydoc
import subprocess
import sys
from pathlib import Path

import bench
import featcache
import heads

# As in a kernel: the shell says that it is one, and output does not go by the descriptors.
KERNEL = """
import io, sys, types
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell, version_info=(8, 0))
sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
"""


def run_in_kernel(code: str) -> tuple[str, str]:
    end = "\nprint(repr((sys.stdout.getvalue(), sys.stderr.getvalue())), file=sys.__stdout__)"
    done = subprocess.run(
        [sys.executable, "-c", KERNEL + code + end], capture_output=True, text=True, check=True
    )
    out, err = eval(done.stdout.strip().splitlines()[-1])
    return out, err


def test_a_notebook_shows_bar_and_log_and_nothing_else(photos: Path) -> None:
    code = (
        "import featcache\n"
        f"f = featcache.extract('mobilenet', {str(photos)!r}, weights='random', image_size=32)\n"
    )
    out, err = run_in_kernel(code)
    assert "12 to compute" in out
    assert "12 computed" in out
    assert "12/12" in err
    assert "Assets" not in out + err
    assert "ipywidgets" not in out + err


def test_logging_that_a_user_set_up_is_left_alone(photos: Path) -> None:
    code = (
        "import featcache, logging\n"
        "logging.basicConfig(stream=sys.stderr, format='mine %(message)s')\n"
        f"featcache.explain('mobilenet', {str(photos)!r}, weights='random', image_size=32)\n"
        f"featcache.extract('mobilenet', {str(photos)!r}, weights='random', image_size=32)\n"
    )
    out, _ = run_in_kernel(code)
    assert "computed" not in out


def test_help_and_dir_begin_with_the_public_names() -> None:
    text = pydoc.plain(pydoc.render_doc(featcache))
    opening = text[: text.index("PACKAGE CONTENTS")]
    for name in ("extract", "explain", "load_dataset", "make_bundle", "open_store", "verify"):
        assert name in opening
    for package in (featcache, heads, bench):
        assert set(dir(package)) == set(package.__all__)
