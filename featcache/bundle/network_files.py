"""A bundle as a network for other programs: pixels in, probabilities out."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, cast

from .._io.atomic import make_folder, make_write_error, open_folder_atomic, write_atomic
from .._io.new_file import check_new_path
from ..backbones.keras_types import BackboneLike
from ..backbones.onnx.backbone import OnnxBackbone
from ..backbones.onnx.library import import_onnx, import_onnxruntime
from ..backbones.to_onnx.file import encode_network, run_network
from ..backbones.weights import WeightsLike
from ..engines.openvino import NotConvertible
from ..engines.openvino_file import (
    OpenVINOOperations,
    check_installed,
    check_replaceable,
    run_folder,
    write_openvino,
)
from ..engines.tflite_file import TensorFlowOperations, encode_tflite, run_tflite
from ..errors import NotExportable
from .network_source import file_metadata, network_of
from .onnx_head import OnnxOperations

if TYPE_CHECKING:
    from .bundle import Bundle


class NetworkFiles:
    """The methods of `Bundle` that write it as a network for other programs."""

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        backbone: BackboneLike | None = None,
        weights: WeightsLike = None,
        overwrite: bool = False,
    ) -> None:
        """Write preprocessing, backbone and head as one ONNX network.

        Its input ``images`` takes RGB pixels of uint8, (n, h, w, 3), of the size of the
        backbone; its output ``probabilities`` is (n, k), float32, in the order of `classes`, up
        to 1e-4 equal to `predict`: some images are compared before the file is written. Photos are
        resized as before, which for upright RGB photos and ``resize="stretch"`` is
        ``PIL.Image.open(path).convert("RGB").resize((w, h), PIL.Image.Resampling.BILINEAR)``.
        The metadata of the file has ``classes`` (JSON), ``image_size`` (height x width) and
        ``resize``.

        Parameters
        ----------
        path : path
            Missing folders are created.
        backbone : keras.Model or path of a .keras or .onnx file, optional
            Needed if the bundle was made with a model that is not in the table.
        weights : path, optional
            Needed if the bundle was made with weights in a file.
        overwrite : bool
            Replace an existing file.

        Raises
        ------
        InvalidRequest
            If the file exists and `overwrite` is False, a layer or the preprocessing function
            cannot be written, or the file would give other probabilities.
        MissingExtra
            If `onnx` or `onnxruntime` is not installed.
        BundleMismatch, WeightsUnavailable
            As for `featcache.Predictor`.
        StoreWriteError
            If the write fails; an existing file is unchanged then.
        """
        target = check_new_path(path, overwrite=overwrite)
        import_onnx()
        import_onnxruntime()
        bundle = cast("Bundle", self)
        source = network_of(bundle, backbone, weights)
        encoded = encode_network(
            source.backbone,
            source.image_size,
            lambda writer, embedding: source.finish(OnnxOperations(writer), embedding),
            len(bundle.classes),
            file_metadata(bundle),
        )
        source.check(run_network(encoded, source.images))
        make_folder(target.parent)
        write_atomic(target, encoded, description="the ONNX network")

    def to_openvino(
        self,
        folder: str | os.PathLike[str],
        *,
        backbone: BackboneLike | None = None,
        weights: WeightsLike = None,
        overwrite: bool = False,
    ) -> None:
        """Write preprocessing, backbone and head as a folder of OpenVINO.

        It holds ``model.xml`` and ``model.bin``, a network with the input and the output of
        `to_onnx`, in float32, compared with the bundle in the same way. The XML file has the
        ``classes`` (JSON) and what else the metadata of `to_onnx` has, in ``rt_info/featcache``.

        Parameters
        ----------
        folder : path
            Missing parents are created.
        backbone, weights
            As for `to_onnx`.
        overwrite : bool
            Replace an existing folder that holds such a network and nothing else.

        Raises
        ------
        InvalidRequest
            If the folder exists and may not be replaced, OpenVINO cannot convert the backbone, or
            the network would give other probabilities.
        MissingExtra
            If `openvino` is not installed.
        BundleMismatch, WeightsUnavailable
            As for `featcache.Predictor`.
        StoreWriteError
            If the write fails; an existing folder is unchanged then.
        """
        target = check_new_path(folder, overwrite=overwrite, folder=True)
        check_replaceable(target)
        check_installed()
        bundle = cast("Bundle", self)
        source = network_of(bundle, backbone, weights)
        operations = OpenVINOOperations()
        make_folder(target.parent)
        try:
            with open_folder_atomic(target, replace=True) as work:
                write_openvino(
                    source.backbone,
                    source.image_size,
                    lambda embedding: source.finish(operations, embedding),
                    work,
                    file_metadata(bundle),
                )
                source.check(run_folder(work, source.images))
        except NotConvertible as error:
            raise NotExportable(
                f"OpenVINO cannot convert the network: {error}. Make the bundle with an earlier "
                "layer of the backbone, or with another backbone.",
                received=source.backbone.name,
            ) from error
        except OSError as error:
            raise make_write_error(error, target, "the OpenVINO network") from error

    def to_tflite(
        self,
        path: str | os.PathLike[str],
        *,
        backbone: BackboneLike | None = None,
        weights: WeightsLike = None,
        overwrite: bool = False,
    ) -> None:
        """Write preprocessing, backbone and head as one TFLite file, for LiteRT.

        A network with the input and the output of `to_onnx`, in float32, compared with the bundle
        in the same way. The file is a ZIP archive as well, of ``metadata.json`` with the
        ``classes`` and what else the metadata of `to_onnx` has.

        Parameters
        ----------
        path : path
            Missing folders are created.
        backbone : keras.Model or path of a .keras file, optional
            Needed if the bundle was made with a model that is not in the table.
        weights, overwrite
            As for `to_onnx`.

        Raises
        ------
        InvalidRequest
            If the file exists and `overwrite` is False, the backbone is an ONNX network, Keras does
            not run on TensorFlow, its converter refuses the network, or the file would give other
            probabilities.
        BundleMismatch, WeightsUnavailable
            As for `featcache.Predictor`.
        StoreWriteError
            If the write fails; an existing file is unchanged then.
        """
        target = check_new_path(path, overwrite=overwrite)
        bundle = cast("Bundle", self)
        source = network_of(bundle, backbone, weights)
        if isinstance(source.backbone, OnnxBackbone):
            raise NotExportable(
                "The backbone of the bundle is an ONNX network, which cannot become a TFLite file; "
                "write an ONNX file (to_onnx) or an OpenVINO folder (to_openvino).",
                received=source.backbone.title,
            )
        metadata = {**file_metadata(bundle), "classes": list(bundle.classes)}
        encoded = encode_tflite(
            source.backbone,
            source.image_size,
            lambda embedding: source.finish(TensorFlowOperations(), embedding),
            {"metadata.json": json.dumps(metadata, indent=2)},
        )
        source.check(run_tflite(encoded, source.images))
        make_folder(target.parent)
        write_atomic(target, encoded, description="the TFLite network")
