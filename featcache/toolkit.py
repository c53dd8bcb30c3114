"""Supported helpers for packages built on featcache, such as `bench`.

Atomic files and cache folders, progress bars and the frame of a command, streams of decoded
images, image ids, labels and splits, the layers of backbones, and blocks after which the process
is as it was. Changes of these names are listed in CHANGELOG.md; every other module below
`featcache` may change without notice.
"""

from __future__ import annotations

from ._io.atomic import (
    make_folder,
    open_atomic,
    read_memo,
    remove_stale,
    temporary_path,
    write_all,
    write_atomic,
    write_memo,
)
from ._io.cache_dirs import cache_folder, pixels_folder, training_folder
from ._io.console import run_command
from ._io.held_warnings import ignored_warnings
from ._io.logs import get_logger
from ._io.progress import progress_bar
from .backbones.architecture import all_layers, layer_names
from .backbones.keras_backend import quiet_log, unmoved_random
from .backbones.model import Backbone
from .backbones.request import ModelRequest, make_request
from .backbones.resolve import BuiltBackbone
from .backbones.spec import content_key, find_backbone
from .data.boxes import CROPS, Crop
from .data.columns import text_of
from .data.file_index import content_ids
from .data.labels import describe_conflicts, is_missing, label_codes, label_conflicts
from .data.split import split_rows, stratified_group_split
from .extraction.pipeline import batches, default_workers
from .extraction.prepare import Source, uses_sample
from .images.decode import DECODE_VERSION, Resize, load_image, load_pixels
from .images.image_file import BadImage, Box, example_ids
from .images.limits import MemoryBudget
from .printable import printable

__all__ = [
    "CROPS",
    "DECODE_VERSION",
    "Backbone",
    "BadImage",
    "Box",
    "BuiltBackbone",
    "Crop",
    "MemoryBudget",
    "ModelRequest",
    "Resize",
    "Source",
    "all_layers",
    "batches",
    "cache_folder",
    "content_ids",
    "content_key",
    "default_workers",
    "describe_conflicts",
    "example_ids",
    "find_backbone",
    "get_logger",
    "ignored_warnings",
    "is_missing",
    "label_codes",
    "label_conflicts",
    "layer_names",
    "load_image",
    "load_pixels",
    "make_folder",
    "make_request",
    "open_atomic",
    "pixels_folder",
    "printable",
    "progress_bar",
    "quiet_log",
    "read_memo",
    "remove_stale",
    "run_command",
    "split_rows",
    "stratified_group_split",
    "temporary_path",
    "text_of",
    "training_folder",
    "unmoved_random",
    "uses_sample",
    "write_all",
    "write_atomic",
    "write_memo",
]
