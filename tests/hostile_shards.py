"""Files with the right hash in their names that are no shards, each malformed in its own way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featcache.store.store import Store
from stores import HALF, SPEC, WIDTH, rows_of


def planted(store: Store, build: Any) -> Path:
    """Put a file made by `build(h5py.File)` into the store under a fitting name."""
    import hashlib

    scratch = store.folder / "scratch"
    with h5py.File(scratch, "w") as file:
        file.attrs["format"] = "featcache-shard"
        file.attrs["format_version"] = 1
        file.attrs["spec"] = json.dumps(SPEC.components())
        file.attrs["provenance"] = "{}"
        build(file)
    sha = hashlib.sha256(scratch.read_bytes()).hexdigest()
    return scratch.rename(store.folder / f"{'0' * 8}-000001-3-{sha}.h5")


def sound_parts(file: h5py.File, *without: str) -> None:
    parts = {
        "embeddings": rows_of(1, 2, 3),
        "image_id": np.zeros((3, 32), np.uint8),
        "view": np.zeros(3, np.int32),
    }
    for name, data in parts.items():
        if name not in without:
            file.create_dataset(name, data=data, chunks=data.shape, fletcher32=True)


def external_link(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    file["embeddings"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_link(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    file["embeddings"] = h5py.SoftLink("/view")


def external_storage(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    file.create_dataset("embeddings", (3, WIDTH), "<f4", external=[("/etc/passwd", 0, 72)])


def virtual(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    layout = h5py.VirtualLayout((3, WIDTH), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, WIDTH))
    file.create_virtual_dataset("embeddings", layout)


def shape_bomb(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    file.create_dataset("embeddings", (2**40, WIDTH), "<f4", chunks=(1, WIDTH), fletcher32=True)


def foreign_filter(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    file.create_dataset("embeddings", data=rows_of(1, 2, 3), compression="gzip", fletcher32=True)


def foreign_dtype(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    file.create_dataset(
        "embeddings", data=rows_of(1, 2, 3).astype("f8"), chunks=(3, WIDTH), fletcher32=True
    )


def rows_of_another_dtype(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    rows = rows_of(1, 2, 3).astype("f2")
    file.create_dataset("embeddings", data=rows, chunks=(3, WIDTH), fletcher32=True)


def spec_of_another_dtype(file: h5py.File) -> None:
    sound_parts(file)
    file.attrs["spec"] = json.dumps(HALF.components())


def spec_of_no_dtype(file: h5py.File) -> None:
    sound_parts(file)
    file.attrs["spec"] = json.dumps({**SPEC.components(), "row_dtype": "float32, really"})


def foreign_spec(file: h5py.File) -> None:
    sound_parts(file)
    file.attrs["spec"] = json.dumps({**SPEC.components(), "layer": "other"})


def extra_member(file: h5py.File) -> None:
    sound_parts(file)
    file.create_group("more")


def group_instead(file: h5py.File) -> None:
    sound_parts(file, "view")
    file.create_group("view")


def no_kind(file: h5py.File) -> None:
    sound_parts(file)
    file.attrs["format"] = "another"


def newer_version(file: h5py.File) -> None:
    sound_parts(file)
    file.attrs["format_version"] = 99


def spec_of_another_kind(file: h5py.File) -> None:
    sound_parts(file)
    file.attrs["spec"] = "[]"


def fewer_ids(file: h5py.File) -> None:
    sound_parts(file, "image_id")
    file.create_dataset("image_id", data=np.zeros((2, 32), "u1"), chunks=(2, 32), fletcher32=True)


def fewer_rows_than_its_name(file: h5py.File) -> None:
    for name, shape, dtype in (
        ("embeddings", (2, WIDTH), "<f4"), ("image_id", (2, 32), "u1"), ("view", (2,), "<i4")
    ):  # fmt: skip
        file.create_dataset(name, data=np.zeros(shape, dtype), chunks=shape, fletcher32=True)


def cut_into_columns(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    file.create_dataset("embeddings", data=rows_of(1, 2, 3), chunks=(3, 2), fletcher32=True)


def never_written(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    data = file.create_dataset(
        "embeddings", (3, WIDTH), "<f4", chunks=(1, 2000), maxshape=(3, None), fletcher32=True
    )
    data[:2] = rows_of(1, 2)


def never_written_in_part(file: h5py.File) -> None:
    # As much is stored as is declared, in chunks that are larger than their share.
    sound_parts(file, "embeddings")
    data = file.create_dataset("embeddings", (3, WIDTH), "<f4", chunks=(2, WIDTH), fletcher32=True)
    data[:2] = rows_of(1, 2)


def without_its_filter(file: h5py.File) -> None:
    sound_parts(file, "embeddings")
    data = file.create_dataset("embeddings", (3, WIDTH), "<f4", chunks=(3, WIDTH), fletcher32=True)
    data.id.write_direct_chunk((0, 0), rows_of(1, 2, 3).tobytes() + bytes(4), filter_mask=1)


HOSTILE = [
    external_link, soft_link, external_storage, virtual, shape_bomb, foreign_filter,
    foreign_dtype, rows_of_another_dtype, spec_of_another_dtype, spec_of_no_dtype,
    foreign_spec, extra_member, group_instead, no_kind, newer_version,
    spec_of_another_kind, fewer_ids, fewer_rows_than_its_name, cut_into_columns, never_written,
    never_written_in_part, without_its_filter,
]  # fmt: skip
