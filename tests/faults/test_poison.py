"""Hostile files: refused with a clear error, and nothing outside them is ever opened."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featcache.backbones.resolve import load_backbone
from featcache.errors import WeightsMismatch
from featcache.hdf5.sandbox import unsafe_hdf5_reason
from featcache.hdf5.weights_file import unsafe_weights_reason
from featcache.store.store import Store
from hostile_shards import HOSTILE, planted
from stores import SPEC, WIDTH, filled

LOOKS = """
import sys
from pathlib import Path
from featcache.errors import FeatcacheError
from featcache.store.maintenance import repair, verify
from featcache.store.pack import pack, unpack
from featcache.store.store import Store
folder = Path(sys.argv[1])
store = Store(folder)
store.read(store.ids())
verify(folder)
pack(store, folder.parent / "p.h5")
try:
    unpack(folder.parent / "hostile.h5", folder.parent / "other")
except FeatcacheError as error:
    print("refused")
repair(folder)
print(len(store.damaged))
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("build", HOSTILE)
def test_no_file_outside_a_hostile_store_is_opened(tmp_path: Path, build: Any) -> None:
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or this user may not trace processes")
    store = filled(Store.create(tmp_path / "store", SPEC, WIDTH), (7,))
    hostile = planted(store, build)
    shutil.copy(hostile, tmp_path / "hostile.h5")
    trace = tmp_path / "trace"
    command = [strace, "-f", "-qq", "-e", "trace=open,openat,openat2,stat,newfstatat,readlink"]
    done = subprocess.run(
        [*command, "-o", str(trace), sys.executable, "-c", LOOKS, str(store.folder)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["refused", "1"], done.stderr
    assert str(hostile) in trace.read_text()  # or the trace would prove nothing
    assert "/etc/passwd" not in trace.read_text()


def linked(file: h5py.File) -> None:
    file["layers"] = h5py.ExternalLink("/etc/passwd", "/x")


def softly_linked(file: h5py.File) -> None:
    file["layers"] = h5py.SoftLink("/elsewhere")


def stored_outside(file: h5py.File) -> None:
    file.create_group("layers").create_dataset("0", (4,), "<f4", external=[("/etc/passwd", 0, 16)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("layers", layout)


def endless(file: h5py.File) -> None:
    file.create_dataset("layers", (2**40,), "<f4", chunks=(1024,))


def of_objects(file: h5py.File) -> None:
    file.create_dataset("layers", (1,), h5py.string_dtype())


def named_type(file: h5py.File) -> None:
    file["layers"] = np.dtype("<f4")


@pytest.mark.parametrize(
    "build", [linked, softly_linked, stored_outside, virtual, endless, of_objects, named_type]
)
def test_hostile_weights_are_refused_before_keras_sees_them(tmp_path: Path, build: Any) -> None:
    path = tmp_path / "some.weights.h5"
    with h5py.File(path, "w") as file:
        build(file)
    with pytest.raises(WeightsMismatch, match="are not loaded"):
        load_backbone("mobilenet", weights=path, image_size=32)
    with open(path, "rb") as opened:
        assert unsafe_weights_reason(opened) == unsafe_hdf5_reason(path) is not None


def test_weights_that_hold_themselves_end(tmp_path: Path) -> None:
    path = tmp_path / "round.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group.create_dataset("0", data=np.zeros(3, np.float32))
        group["again"] = group
        group["root"] = file["/"]
    assert unsafe_hdf5_reason(path) is None
    with open(path, "rb") as opened:
        assert unsafe_weights_reason(opened) is None


def test_want_of_memory_says_nothing_of_the_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(h5py, "File", none_left)
    with pytest.raises(MemoryError):
        unsafe_weights_reason(io.BytesIO())


def test_what_is_no_hdf5_is_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "no.h5"
    path.write_bytes(b"nothing")
    assert "HDF5 cannot open it" in str(unsafe_hdf5_reason(path))


def test_every_layout_of_intact_weights_is_taken(tmp_path: Path) -> None:
    """The control: in one piece, in chunks, without values, a single number, text."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers")
        group.attrs["weight_names"] = [b"kernel", b"bias"]
        group["0"] = np.zeros((30, 20), np.float32)
        group.create_dataset("1", data=np.ones((300, 20), np.float32), chunks=(7, 20))
        group.create_dataset("2", (0, 3), "<f4")
        group["3"] = np.float32(3)
        group["4"] = np.array([b"text"])
        group.create_dataset("5", (5, 5), "<f4")  # never written: zeros
        group.create_dataset("6", (), "<f4")
    assert unsafe_hdf5_reason(path) is None
    with open(path, "rb") as opened:
        assert unsafe_weights_reason(opened) is None


def test_values_beyond_the_end_of_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["0"] = file["1"] = np.arange(1003, dtype=np.float32)
        file["2"] = np.arange(1000, dtype=np.float32)
        offset = file["2"].id.get_offset()
    data = path.read_bytes()
    place = data.index(offset.to_bytes(8, "little"))
    path.write_bytes(data[:place] + (offset + 2000).to_bytes(8, "little") + data[place + 8 :])
    assert "its structure is damaged" in str(unsafe_hdf5_reason(path))
    with open(path, "rb") as opened:
        assert "its structure is damaged" in str(unsafe_weights_reason(opened))
