"""Small stores whose rows follow from their numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featcache._io.hashes import json_hash
from featcache.backbones.spec import BackboneSpec
from featcache.images.image_file import content_id
from featcache.store.store import Store

WIDTH = 6
SPEC = BackboneSpec("tiny", "pool", "ab" * 32, "none", (8, 8), "stretch-bilinear", 1, "0f" * 8)
HALF = replace(SPEC, row_dtype="float16")
BOTH = (SPEC, HALF)


def ids_of(*numbers: int) -> list[str]:
    return [content_id(str(n).encode()) for n in numbers]


def rows_of(*numbers: int) -> np.ndarray[Any, Any]:
    return np.array([np.random.default_rng(n).normal(size=WIDTH) for n in numbers], np.float32)


def as_stored(rows: np.ndarray[Any, Any], spec: BackboneSpec) -> np.ndarray[Any, Any]:
    """What a store of a spec gives back for rows."""
    return rows.astype(spec.row_dtype).astype(np.float32)


def filled(store: Store, *batches: tuple[int, ...]) -> Store:
    for batch in batches:
        store.append(rows_of(*batch), ids_of(*batch))
    store.write_manifest()
    return store


def shards(store: Store) -> list[Path]:
    return sorted(store.folder.glob("*.h5"))


def signed(folder: Path, **changes: Any) -> None:
    """Write a manifest again with other fields, and the checksum that fits them."""
    body = json.loads((folder / "MANIFEST.json").read_text())
    del body["checksum"]
    body.update(changes)
    (folder / "MANIFEST.json").write_text(json.dumps({**body, "checksum": json_hash(body)}))
