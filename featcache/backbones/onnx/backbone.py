"""The frozen network of an ONNX file, which turns pixels into embeddings, with ONNX Runtime."""

from __future__ import annotations

import copy
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._io.wording import first_line
from ...errors import InvalidRequest
from .. import preprocessing
from ..request import OnnxRequest
from ..spec import EngineName, Precision, own_model_name
from .library import import_onnxruntime
from .rebuild import find_pooling, rebuild
from .session import open_limited_session, open_session


class OnnxBackbone:
    """An ONNX network, cut at a layer, that turns pixels into embeddings.

    Has the attributes and methods of `featcache.backbones.model.Backbone`, but no Keras model.

    Parameters
    ----------
    request : OnnxRequest

    Attributes
    ----------
    name, layer, pooling, width, weights_hash, backend, on_accelerator, rule
        As of `featcache.backbones.model.Backbone`.
    title : str
        The name of the file without its ending.
    operators : list of str
        One for each node up to the layer.
    depth : int
        Number of nodes with weights on the longest path.
    encoded : bytes
        The ONNX model that is run, from prepared pixels to embeddings.

    Raises
    ------
    InvalidRequest, WeightsMismatch
        If the network cannot take such images, or a weight is NaN.
    """

    backend = "onnxruntime"
    on_accelerator = False
    is_exact = True
    engine: EngineName = "onnxruntime"
    library = "ONNX Runtime"

    def __init__(self, request: OnnxRequest) -> None:
        self.rule: preprocessing.Rule = request.preprocessing
        network = request.network
        network.check_weights()
        self.name = own_model_name(network.structure_hash())
        self.layer = network.layer
        self.weights_hash = network.weights_hash()
        self.title = network.name
        self.operators = [node.operator for node in network.nodes]
        self.depth = network.depth()
        self._count = sum(v.size for v in network.weights.values() if v.dtype.kind == "f")
        shape, self._one_by_one = _try(request)
        pooling = find_pooling(network, shape, request.pooling)
        self.pooling = pooling[0]
        self.encoded = rebuild(network, request.image_size, pooling, one_by_one=self._one_by_one)
        self._run = open_session(self.encoded)
        self.width = int(self._run(np.zeros((1, *request.image_size, 3), np.float32)).shape[1])
        self.widths = [self.width]
        if not self.width:
            raise InvalidRequest(
                f"Layer {self.layer!r} of {self.title} gives no values.", received=self.layer
            )

    @property
    def model(self) -> Any:
        """Raises `InvalidRequest`: there is no Keras model."""
        raise InvalidRequest(
            f"{self.title} is an ONNX network, which has no Keras model to train or to cut; train "
            "a head on its features instead.",
            received=self.title,
        )

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings (b, width), float32, of pixels (b, h, w, 3), which are RGB."""
        prepared = preprocessing.apply(self.rule, pixels)
        if not self._one_by_one:
            return self._checked(self._run(prepared), len(pixels))
        return np.concatenate([self._checked(self._run(image[None]), 1) for image in prepared])

    def _checked(self, rows: NDArray[Any], count: int) -> NDArray[np.float32]:
        """Return rows; raise `InvalidRequest` unless there is one of the same width per image."""
        if rows.shape != (count, self.width):
            raise InvalidRequest(
                f"{self.title} gives an array {rows.shape} for {count} images, not one row of "
                f"{self.width} values per image, so it cannot be used.",
                received=rows.shape,
            )
        return rows.astype(np.float32, copy=False)

    def embed_in(self, precision: Precision, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings as `embed`, always in float32."""
        return self.embed(pixels)

    embed_untraced = embed

    def on_one_thread(self) -> OnnxBackbone:
        """Return the same network, computed by the thread that calls."""
        copied = copy.copy(self)
        copied._run = open_session(self.encoded, threads=1)
        return copied

    def export(self, folder: Path) -> Path:
        """Write the network into a folder, for engines that read ONNX; return its path."""
        folder.mkdir()
        path = folder / "model.onnx"
        path.write_bytes(self.encoded)
        return path

    def count_params(self) -> int:
        """Return the number of weights, as `keras.Model.count_params` does."""
        return self._count

    def provenance(self) -> dict[str, str]:
        """Return versions and backend, stored with the rows; not part of the key."""
        packages = ["onnx", "onnxruntime", "numpy", "Pillow", "h5py"]
        return {"backend": self.backend, **{name: metadata.version(name) for name in packages}}


def _try(request: OnnxRequest) -> tuple[tuple[int, ...], bool]:
    """Run the network once; return the shape of its layer for one image, and if it takes one only.

    A network may be exported for any number of images, but compute one only.
    """
    network, one_by_one = request.network, request.network.input.one_by_one
    import_onnxruntime()  # raises if it is missing
    while True:
        images = np.zeros((1 if one_by_one else 2, *request.image_size, 3), np.float32)
        try:
            encoded = rebuild(network, request.image_size, None, one_by_one=one_by_one)
            found = open_limited_session(encoded)(images)
            if found.ndim < 2 or len(found) != len(images):
                raise ValueError(
                    f"layer {network.layer!r} gives an array {found.shape} for {len(images)} "
                    "images, not one row per image"
                )
        except Exception as error:  # the runtime raises many kinds
            if not one_by_one:
                one_by_one = True
                continue
            raise _cannot_run(request, error) from error
        if found.dtype.kind != "f":
            raise InvalidRequest(
                f"Layer {network.layer!r} of {network.name} gives numbers of type {found.dtype}, "
                "not of a floating-point type, so they are no features; name another layer.",
                received=str(found.dtype),
            )
        return (1, *found.shape[1:]), one_by_one


def _cannot_run(request: OnnxRequest, error: Exception) -> InvalidRequest:
    height, width = request.image_size
    return InvalidRequest(
        f"The network {request.network.name} cannot take images of {height} x {width} pixels: "
        f"{first_line(error, 400)}. Check image_size= and layer=.",
        received=request.image_size,
    )
