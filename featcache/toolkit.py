"""Supported helpers for packages built on featcache, such as `bench`.

Atomic files and cache folders, progress bars and the frame of a command, streams of decoded
images, image ids, labels and splits, the layers of backbones, and blocks after which the process
is as it was. Changes of these names are listed in CHANGELOG.md; every other module below
`featcache` may change without notice.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._io.atomic import make_folder as make_folder
    from ._io.atomic import open_atomic as open_atomic
    from ._io.atomic import read_memo as read_memo
    from ._io.atomic import remove_stale as remove_stale
    from ._io.atomic import temporary_path as temporary_path
    from ._io.atomic import write_all as write_all
    from ._io.atomic import write_atomic as write_atomic
    from ._io.atomic import write_memo as write_memo
    from ._io.cache_dirs import cache_folder as cache_folder
    from ._io.cache_dirs import pixels_folder as pixels_folder
    from ._io.cache_dirs import training_folder as training_folder
    from ._io.choices import check_choice as check_choice
    from ._io.console import run_command as run_command
    from ._io.disk_space import free_bytes as free_bytes
    from ._io.held_warnings import ignored_warnings as ignored_warnings
    from ._io.logs import get_logger as get_logger
    from ._io.progress import progress_bar as progress_bar
    from ._io.shared_change import SharedChange as SharedChange
    from ._io.wording import first_line as first_line
    from ._io.wording import format_count as format_count
    from ._io.wording import install_hint as install_hint
    from ._io.wording import parse_bytes as parse_bytes
    from .backbones.architecture import all_layers as all_layers
    from .backbones.architecture import layer_names as layer_names
    from .backbones.graph import nodes_before as nodes_before
    from .backbones.hub.built import is_hub_backbone as is_hub_backbone
    from .backbones.image_size import parse_image_size as parse_image_size
    from .backbones.imagenet import CAFFE_MEAN_BGR as CAFFE_MEAN_BGR
    from .backbones.imagenet import IMAGENET_MEAN as IMAGENET_MEAN
    from .backbones.imagenet import IMAGENET_STD as IMAGENET_STD
    from .backbones.keras_backend import preserve_random_state as preserve_random_state
    from .backbones.keras_backend import quiet_log as quiet_log
    from .backbones.keras_types import BackboneLike as BackboneLike
    from .backbones.model import Backbone as Backbone
    from .backbones.model_file import is_model_file as is_model_file
    from .backbones.onnx.backbone import OnnxBackbone as OnnxBackbone
    from .backbones.onnx.file import is_onnx_file as is_onnx_file
    from .backbones.preprocessing import RULES as RULES
    from .backbones.preprocessing import affine_of as affine_of
    from .backbones.preprocessing import as_rule as as_rule
    from .backbones.request import BackboneOptions as BackboneOptions
    from .backbones.request import ModelRequest as ModelRequest
    from .backbones.request import make_request as make_request
    from .backbones.resolve import BuiltBackbone as BuiltBackbone
    from .backbones.spec import ENGINES as ENGINES
    from .backbones.spec import POOLINGS as POOLINGS
    from .backbones.spec import PRECISIONS as PRECISIONS
    from .backbones.spec import content_key as content_key
    from .backbones.spec import find_backbone as find_backbone
    from .data.boxes import CROPS as CROPS
    from .data.boxes import Crop as Crop
    from .data.columns import text_of as text_of
    from .data.content_ids import content_ids as content_ids
    from .data.labels import describe_conflicts as describe_conflicts
    from .data.labels import is_missing as is_missing
    from .data.labels import label_codes as label_codes
    from .data.labels import label_conflicts as label_conflicts
    from .data.split import split_rows as split_rows
    from .data.split import stratified_group_split as stratified_group_split
    from .extraction.cluster.driver import check_cluster as check_cluster
    from .extraction.pipeline import batches as batches
    from .extraction.pipeline import default_workers as default_workers
    from .extraction.prepare import Source as Source
    from .extraction.prepare import uses_sample as uses_sample
    from .extraction.prepare import weights_for as weights_for
    from .hdf5.row_dtype import ROW_DTYPES as ROW_DTYPES
    from .hdf5.row_dtype import RowDtype as RowDtype
    from .images.decode import DECODE_VERSION as DECODE_VERSION
    from .images.decode import RESIZES as RESIZES
    from .images.decode import Resize as Resize
    from .images.decode import load_pixels as load_pixels
    from .images.image_file import BadImage as BadImage
    from .images.image_file import Box as Box
    from .images.image_file import example_ids as example_ids
    from .images.limits import MemoryBudget as MemoryBudget
    from .images.views import MAX_VIEWS as MAX_VIEWS
    from .images.views import View as View
    from .images.views import parse_augmentation as parse_augmentation
    from .images.views import views_of as views_of
    from .printable import printable as printable
    from .store.lazy_rows import LazyRows as LazyRows

# Where each name lives; loaded on first use, so that `heads` does not load what reads images.
_HOMES = {
    "Backbone": "backbones.model",
    "BackboneLike": "backbones.keras_types",
    "BackboneOptions": "backbones.request",
    "BadImage": "images.image_file",
    "Box": "images.image_file",
    "BuiltBackbone": "backbones.resolve",
    "CAFFE_MEAN_BGR": "backbones.imagenet",
    "CROPS": "data.boxes",
    "Crop": "data.boxes",
    "DECODE_VERSION": "images.decode",
    "ENGINES": "backbones.spec",
    "IMAGENET_MEAN": "backbones.imagenet",
    "IMAGENET_STD": "backbones.imagenet",
    "MemoryBudget": "images.limits",
    "ModelRequest": "backbones.request",
    "OnnxBackbone": "backbones.onnx.backbone",
    "POOLINGS": "backbones.spec",
    "PRECISIONS": "backbones.spec",
    "RESIZES": "images.decode",
    "ROW_DTYPES": "hdf5.row_dtype",
    "RULES": "backbones.preprocessing",
    "Resize": "images.decode",
    "RowDtype": "hdf5.row_dtype",
    "SharedChange": "_io.shared_change",
    "Source": "extraction.prepare",
    "View": "images.views",
    "affine_of": "backbones.preprocessing",
    "all_layers": "backbones.architecture",
    "as_rule": "backbones.preprocessing",
    "batches": "extraction.pipeline",
    "cache_folder": "_io.cache_dirs",
    "check_choice": "_io.choices",
    "check_cluster": "extraction.cluster.driver",
    "content_ids": "data.content_ids",
    "content_key": "backbones.spec",
    "default_workers": "extraction.pipeline",
    "describe_conflicts": "data.labels",
    "example_ids": "images.image_file",
    "find_backbone": "backbones.spec",
    "first_line": "_io.wording",
    "format_count": "_io.wording",
    "install_hint": "_io.wording",
    "free_bytes": "_io.disk_space",
    "get_logger": "_io.logs",
    "ignored_warnings": "_io.held_warnings",
    "is_missing": "data.labels",
    "is_hub_backbone": "backbones.hub.built",
    "is_model_file": "backbones.model_file",
    "is_onnx_file": "backbones.onnx.file",
    "label_codes": "data.labels",
    "label_conflicts": "data.labels",
    "layer_names": "backbones.architecture",
    "load_pixels": "images.decode",
    "make_folder": "_io.atomic",
    "make_request": "backbones.request",
    "nodes_before": "backbones.graph",
    "open_atomic": "_io.atomic",
    "parse_bytes": "_io.wording",
    "LazyRows": "store.lazy_rows",
    "parse_image_size": "backbones.image_size",
    "pixels_folder": "_io.cache_dirs",
    "printable": "printable",
    "progress_bar": "_io.progress",
    "quiet_log": "backbones.keras_backend",
    "read_memo": "_io.atomic",
    "remove_stale": "_io.atomic",
    "run_command": "_io.console",
    "split_rows": "data.split",
    "stratified_group_split": "data.split",
    "temporary_path": "_io.atomic",
    "text_of": "data.columns",
    "training_folder": "_io.cache_dirs",
    "preserve_random_state": "backbones.keras_backend",
    "uses_sample": "extraction.prepare",
    "MAX_VIEWS": "images.views",
    "parse_augmentation": "images.views",
    "views_of": "images.views",
    "weights_for": "extraction.prepare",
    "write_all": "_io.atomic",
    "write_atomic": "_io.atomic",
    "write_memo": "_io.atomic",
}

__all__ = [
    "CAFFE_MEAN_BGR",
    "CROPS",
    "DECODE_VERSION",
    "ENGINES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_VIEWS",
    "POOLINGS",
    "PRECISIONS",
    "RESIZES",
    "RULES",
    "Backbone",
    "BackboneOptions",
    "BadImage",
    "Box",
    "BuiltBackbone",
    "Crop",
    "LazyRows",
    "MemoryBudget",
    "ModelRequest",
    "OnnxBackbone",
    "Resize",
    "SharedChange",
    "Source",
    "View",
    "affine_of",
    "all_layers",
    "as_rule",
    "batches",
    "cache_folder",
    "check_choice",
    "check_cluster",
    "content_ids",
    "content_key",
    "default_workers",
    "describe_conflicts",
    "example_ids",
    "find_backbone",
    "first_line",
    "format_count",
    "free_bytes",
    "get_logger",
    "ignored_warnings",
    "install_hint",
    "is_hub_backbone",
    "is_missing",
    "is_model_file",
    "is_onnx_file",
    "label_codes",
    "label_conflicts",
    "layer_names",
    "load_pixels",
    "make_folder",
    "make_request",
    "nodes_before",
    "open_atomic",
    "parse_augmentation",
    "parse_bytes",
    "parse_image_size",
    "pixels_folder",
    "preserve_random_state",
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
    "uses_sample",
    "views_of",
    "weights_for",
    "write_all",
    "write_atomic",
    "write_memo",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __package__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
