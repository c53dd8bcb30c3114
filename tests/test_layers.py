"""The one-way flow, the doors to heavy libraries, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "featcache": {"featcache"},
    "heads": {"heads", "featcache"},
    "bench": {"bench", "heads", "featcache"},
}
PUBLIC_TO_HEADS = {"featcache", "featcache.errors"}
DOORS = {
    "keras": {"featcache/backbones/keras_backend.py"},
    "tensorflow": set(),
    "h5py": {f"featcache/hdf5/{p.name}" for p in (ROOT / "featcache" / "hdf5").glob("*.py")},
    "openvino": {f"featcache/engines/openvino_{name}.py" for name in ("runner", "graph")},
    "lightgbm": {"heads/boosting.py"},
    "tqdm": {"featcache/_io/progress.py"},
    "pooch": {"featcache/_io/download.py"},
    "requests": {"featcache/_io/download.py"},
    "pillow_heif": {"featcache/images/heif.py"},
    "pydicom": {"featcache/images/dicom.py"},
    "pickle": set(),
}
# These decide and describe; they know neither how models run nor how rows are kept.
PURE = {
    "specs", "images", "dataset", "planning", "splits", "preprocessing", "architecture",
    "functionhash", "labels", "columns", "folders", "formats", "notebook",
}  # fmt: skip
HEAVY_MODULES = {"backbone", "keras_door", "store", "hdf5", "extraction", "preparation", "request"}


def sources() -> list[Path]:
    return [p for package in ALLOWED for p in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in it."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names if not node.module}
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way_and_through_the_doors(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    package = relative.split("/")[0]
    for name in imports(path):
        top = name.split(".")[0]
        if top in ALLOWED:
            assert top in ALLOWED[package], f"{relative} imports {name}"
        if package == "heads" and top == "featcache":
            assert name in PUBLIC_TO_HEADS, f"{relative} imports {name}"
        if top in DOORS and package != "bench":
            assert relative in DOORS[top], f"{relative} opens a second door to {top}"


def test_the_check_sees_relative_and_nested_imports(tmp_path: Path) -> None:
    assert "featcache.hdf5" in imports(ROOT / "featcache" / "store.py")
    assert "lightgbm" in imports(ROOT / "heads" / "boosting.py")


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_import_no_heavy_one(module: str) -> None:
    found = {n.removeprefix("featcache.") for n in imports(ROOT / "featcache" / f"{module}.py")}
    assert not found & HEAVY_MODULES


def test_backbone_and_store_never_meet() -> None:
    assert "featcache.store.store" not in imports(ROOT / "featcache" / "backbone.py")
    assert "featcache.backbones.model" not in imports(ROOT / "featcache" / "store.py")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_loads_nothing_heavy() -> None:
    heavy = ["tensorflow", "keras", "h5py", "sklearn", "lightgbm", "pandas", "PIL", "numpy"]
    code = f"import sys, featcache; print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


def test_a_full_hit_imports_no_keras(photos: Path) -> None:
    from featcache import extract

    extract("mobilenet", photos, weights="random", image_size=32)
    code = (
        "import sys, featcache, numpy\n"
        f"f = featcache.extract('mobilenet', {str(photos)!r}, weights='random', image_size=32)\n"
        "numpy.asarray(f.X)\n"
        "print(f.summary.computed, 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    assert run(code) == "0 False False"


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

    for package in (featcache, heads, bench):
        assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError):
        featcache.nonsense  # noqa: B018
