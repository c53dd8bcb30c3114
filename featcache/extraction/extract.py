"""Orchestration of an extraction: plan, compute and commit, join the rows to the labels."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .._io.choices import check_choice
from .._io.logs import get_logger, show_log_in_notebook
from ..backbones.keras_types import BackboneLike
from ..backbones.preprocessing import Rule
from ..backbones.request import BackboneOptions, make_request
from ..backbones.spec import EngineName, Pooling, Precision
from ..backbones.weights import WeightsLike
from ..data.boxes import Crop
from ..data.labels import (
    ON_CONFLICT,
    OnConflict,
    describe_conflicts,
    label_conflicts,
)
from ..data.listing import worth_warning
from ..engines.devices import Devices
from ..engines.select import check_engine
from ..errors import ConflictingLabels, InvalidRequest
from ..hdf5.row_dtype import RowDtype
from ..images.decode import Resize
from ..images.views import Augmentation, Policy, views_of
from .compute import Computed, RunSettings, choose_engine, compute
from .concat import join
from .features import Features
from .join import join_rows
from .marks import mark_store
from .prepare import (
    ExtractionJob,
    Source,
    make_explanation,
    prepare_layers,
    uses_sample,
    weights_for,
)
from .several_layers import compute_layers

if TYPE_CHECKING:
    from .cluster.driver import Cluster

log = get_logger(__name__)


def extract(
    backbone: BackboneLike,
    data: object = None,
    *,
    layer: str | int | Sequence[str | int] | None = None,
    pooling: Pooling | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: Resize | None = None,
    weights: WeightsLike = "auto",
    preprocessing: Rule | None = None,
    precision: Precision = "float32",
    row_dtype: RowDtype = "float32",
    engine: EngineName = "auto",
    labels: Iterable[object] | None = None,
    crop: Crop | None = None,
    margin: float = 0.0,
    value_range: tuple[float, float] | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    on_conflict: OnConflict = "warn",
    views: int = 1,
    augmentation: Augmentation | Policy | None = None,
    random_state: int = 0,
    batch_size: int | None = None,
    workers: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    shared_dir: str | os.PathLike[str] | None = None,
    retry_failed: bool = False,
    progress: bool | None = None,
    client: object = None,
    task_size: int | None = None,
    devices: Devices | None = None,
) -> Features:
    """Return the embeddings of images by a frozen backbone; compute only those not stored yet.

    Parameters
    ----------
    backbone : str, path or keras.Model
        A name from the table (``featcache backbones``), a built model of inputs
        ``(b, h, w, 3)``, its ``.keras`` file (see `featcache.load_model`), the ``.onnx`` file
        of a network of any framework, or a preset of keras-hub, ``"hub:NAME"`` or the path of its
        folder.
    data : optional
        A folder of class folders, a folder of images, a CSV file or DataFrame with a
        ``path`` column (and ``label``, ``split``, others), an array ``(n, h, w, 3)``, a list of
        paths, arrays, PIL images or bytes, a ``tf.data.Dataset``, ``PyDataset``, ``DataLoader`` or
        generator, a `Dataset`, or the name of a data set that ``featcache fetch`` downloaded; see
        `featcache.load_dataset`.
        Default: the folder in ``FEATCACHE_DATA``, or a small sample of drawn dogs.
    layer : str, int or list of these, optional
        The layer whose output is the embedding: its name, its index in ``model.layers`` (-2
        is the last but one), or ``"output"`` for the model's output. Default: the layer that
        feeds the classification layer, or the output of your own model if it has none; see
        `featcache.backbones.graph.default_layer`. Of an ONNX network: the name of an output, a
        tensor or a node; default: its output. With weights that lack the classification top,
        VGG and MobileNetV3 default to their last layer before it. Several layers of a Keras model
        are computed in one pass; each has the store that it has alone, and the features are
        those of `featcache.concat`.
    pooling : {"avg", "max", "flat", "cls"}, optional
        How the output of a layer with spatial axes, or of tokens ``(b, n, d)``, becomes a vector.
        ``"cls"`` takes the first token. Default: ``"avg"``; for an image backbone of keras-hub its
        CLS token or pooled output if it has one. Its means are those of the patches.
    image_size : int or (int, int), optional
        Side, or height and width, in pixels. Default: the backbone's native size.
    resize : {"stretch", "crop", "pad"}, optional
        Ignore the aspect ratio (as Keras does), crop the centre, or pad with black. Default:
        ``"stretch"``; for a preset of keras-hub, what its image converter does.
    weights : {"auto", "imagenet", "imagenet-or-random", "random", "random:SEED"} or path
        ``"auto"``: ImageNet weights from Keras' cache or a download; for the sample of drawn
        dogs ``"imagenet-or-random"``, which falls back to random weights with a
        `RandomWeightsWarning`. A file may lack the classification top.
    preprocessing : str, Normalization or callable, optional
        Default: the backbone's own. Needed for an ONNX network, and for a model of your own that
        does not rescale its input; see `featcache.backbones.preprocessing.apply`.
    precision : {"float32", "bfloat16"}
        Number format of the forward pass. ``"bfloat16"`` is up to several times as fast
        where the processor or GPU supports it. Its rows, stored separately, differ from
        those in float32 by some per cent of a row's largest value. Part of the key.
    row_dtype : {"float32", "float16"}
        Number format in which rows are stored. ``"float16"`` takes half the disk: values are
        rounded to 11 significant bits, and below 6e-8 to 0. An image with a value beyond 65504 is
        quarantined. Rows are converted to float32 when they are read. Part of the key.
    engine : {"auto", "openvino", "keras", "tensorflow", "onnxruntime"}
        What runs the backbone. ``"auto"``: OpenVINO if ``featcache[openvino]`` is installed,
        it can run the model, there is no GPU, and the model was converted before or at least
        100 images are to be computed; else Keras, or ONNX Runtime for an ONNX network.
        ``"tensorflow"``: Keras with that backend. Not part of the key.
    labels : sequence, optional
        Labels for an array or a list: str, int, bool or float, or a pandas Categorical. None,
        NaN and "" mean unlabelled: such images are kept for prediction, and are no class.
    crop : {"whole", "box"}, optional
        ``"box"``: crop each photo to its columns ``left``, ``top``, ``right`` and ``bottom``,
        in pixels of the upright photo. Default: whole photos. Part of the key.
    margin : float
        Fraction of its size, 0 to 1, by which each box is widened.
    value_range : (float, float), optional
        The values of black and white in arrays of floats, such as ``(0, 1)``. Arrays are
        rounded to uint8, as images are.
    path_column, label_column : str, optional
        The columns of a table with the paths and the labels; see `featcache.load_dataset`.
    on_conflict : {"warn", "error", "keep"}
        If images of identical content have different labels: log a warning, raise an error
        before anything is computed, or accept them. ``summary.conflicts`` lists them.
    views : int
        Number of views of each image, 1 to 1000: the image itself (view 0) and augmented ones.
        Each is stored on its own, so that raising `views` computes the new ones alone.
    augmentation : Augmentation or "flip", optional
        How the views differ; default: ``Augmentation()``. ``"flip"``: the mirror image, with
        ``views=2``. Part of the key of views other than 0.
    random_state : int
        Seed of the views. Seed, number of the view, augmentation and content of the image
        determine a view, in any order and on any machine. Part of the key.
    batch_size : int, optional
        Images per commit, and at most this many per forward pass. Default: one commit per
        second, or per 32 images (GPU: 256) if these take longer; the images per forward pass
        are measured, and reduced where memory is insufficient. Not part of the key.
    workers : int, optional
        Number of decoding threads. Default: one per core, at most 8 per device.
    cache_dir : path or str, optional
        The cache folder, or the URL of a cache in an object store (``s3://bucket/prefix``, extra
        ``s3``; see ``docs/scale.md``). Default: ``FEATCACHE_CACHE`` or the user's cache folder.
    shared_dir : path, optional
        Another cache folder, such as one on a shared disk, or the URL of one in an object store
        (``s3://bucket/prefix``, extra ``s3``), whose rows are used where `cache_dir` lacks them.
        Nothing is written there: new rows go to `cache_dir`. Default: ``FEATCACHE_SHARED``, if
        that is set.
    retry_failed : bool
        Try quarantined images again.
    progress : bool, optional
        Show progress bars. Default: on a terminal and in a notebook.
    client : distributed.Client, optional
        Let the workers of this Dask cluster compute what is not stored yet; they read the images
        and write to `cache_dir` themselves, on disks that all share or in an object store. See
        ``docs/scale.md``.
        Default: this process computes. Needs ``featcache[dask]``.
    task_size : int, optional
        Images per task of a cluster. Default: 2048, or down to 256 so that each thread of the
        workers has four tasks.
    devices : "auto", int, str or list of str, optional
        Compute on several devices of this machine at once: all GPUs, a number of them, or those
        named, such as ``["gpu:0", "gpu:1"]``. ``["cpu:0", "cpu:1"]``: an engine on each of two
        cores, with OpenVINO or ONNX Runtime. Each has its own copy of the network, and all share
        the decoding threads. Default: Keras' default device, or all cores. Not part of the key.

    Returns
    -------
    Features
        One row for each usable image, in the data set's order; for each view in turn.

    Raises
    ------
    UnknownBackbone, UnknownLayer, InvalidRequest
        If an argument is not accepted, or the model gives no row that can be stored.
    ModelRefused
        If a saved model holds anything but Keras' own layers and their weights, or an ONNX
        network anything but ONNX' own operators that only compute.
    MissingExtra
        If the backbone is an ONNX network, and ``featcache[onnx]`` is not installed.
    DatasetError, DatasetNotFound, NoUsableImages
        If the data cannot be listed or no image can be used; or labels conflict and
        `on_conflict` is ``"error"``: then the attribute `conflicts` lists them.
    WeightsUnavailable, WeightsMismatch
        If the weights are neither on disk nor downloadable, or do not fit the backbone.
    EngineUnavailable, OutOfMemory, DeviceError
        If `engine` cannot run the backbone, not even one image fits the memory, or one of several
        devices fails.
    StoreWriteError
        If a write fails, or the rows of several views do not fit on the disk; committed rows
        stay.
    WorkerRefused, ClusterError
        If a worker has another version of featcache, other weights or other disks; or if workers
        or the scheduler ended and images were left. Committed rows stay.
    KeyboardInterrupt
        On Ctrl-C. Committed rows stay; the same call resumes.

    Examples
    --------
    >>> features = extract("pocket")
    >>> features.X.shape, features.X.dtype, len(features.classes)
    ((200, 256), dtype('float32'), 10)
    """
    started = time.perf_counter()
    show_log_in_notebook()
    settings = RunSettings(engine, batch_size, workers, retry_failed, progress, task_size, devices)
    cluster = None if client is None else _open_cluster(client, devices)
    check_choice("on_conflict", on_conflict, ON_CONFLICT)
    check_engine(engine)
    weights = weights_for(weights, sample=uses_sample(data))
    options = BackboneOptions(
        pooling=pooling, image_size=image_size, resize=resize, weights=weights,
        preprocessing=preprocessing, precision=precision, row_dtype=row_dtype,
    )  # fmt: skip
    requests = [make_request(backbone, replace(options, layer=one)) for one in _layers(layer)]
    source = Source(data, labels, crop, margin, value_range, path_column, label_column)
    chosen = views_of(views, augmentation, random_state)
    layers = prepare_layers(
        requests, source, chosen, cache_dir, workers, retry_failed, progress, shared_dir
    )
    return _run(layers, on_conflict, settings, cluster, started)


def _layers(layer: Any) -> list[Any]:
    """Return the layers as a list of at least one."""
    if not isinstance(layer, (list, tuple)):
        return [layer]
    if not layer:
        raise InvalidRequest(
            f"layer={layer!r} names no layer; leave layer= out for the default one.", received=layer
        )
    if len(layer) > 1 and None in layer:
        raise InvalidRequest(
            "layer=None stands for the default layer, and cannot be in a list of layers; name it.",
            received=layer,
        )
    return list(layer)


def _open_cluster(client: object, devices: Devices | None) -> Cluster:
    if devices is not None:
        raise InvalidRequest(
            f"devices={devices!r} chooses devices of this machine, and with client= the workers of "
            "a cluster compute: leave devices= out, and start a worker per GPU.",
            received=devices,
        )
    from .cluster.driver import open_cluster  # imports Dask

    return open_cluster(client)


def _run(
    layers: list[list[ExtractionJob]],
    on_conflict: OnConflict,
    settings: RunSettings,
    cluster: Cluster | None,
    started: float,
) -> Features:
    """Carry out the jobs of each layer: compute and commit what is missing, and join the rows."""
    name = layers[0][0].resolved.request.name
    level = _level([job for jobs in layers for job in jobs], settings)
    for jobs in layers:
        log.log(level, "%s: %s", name, make_explanation(jobs))
    conflicts = _find_conflicts(layers[0][0], on_conflict)
    with ExitStack() as marks:
        layers = [[mark_store(j, marks, settings.retry_failed) for j in jobs] for jobs in layers]
        layers, computed = _compute_missing(layers, settings, cluster, marks)
        seconds = time.perf_counter() - started
        found = [
            join_rows(jobs, one, conflicts, seconds)
            for jobs, one in zip(layers, computed, strict=True)
        ]
        for jobs in layers:
            for job in jobs:
                job.place.mark_used()
    level = _level([job for jobs in layers for job in jobs], settings)
    features = join(found)
    if len(found) > 1:
        features = replace(features, summary=replace(features.summary, seconds=seconds))
    ignored = layers[0][0].dataset.ignored
    lost = features.quarantined or features.summary.unlabelled or worth_warning(ignored)
    log.log(logging.WARNING if lost else level, "%s: %s", name, features.summary)
    return features


def _compute_missing(
    layers: list[list[ExtractionJob]],
    settings: RunSettings,
    cluster: Cluster | None,
    marks: ExitStack,
) -> tuple[list[list[ExtractionJob]], list[Computed | None]]:
    """Compute what the stores lack; return the jobs as well, whose key may turn out to be another.

    Several layers are computed in one pass where that is possible, else one after the other.
    """
    computed: list[Computed | None] = [None] * len(layers)
    missing = [n for n, jobs in enumerate(layers) if any(job.plan.compute for job in jobs)]
    if len(missing) > 1 and cluster is None:
        together = compute_layers([layers[n] for n in missing], settings)
        for n, one in zip(missing, together or (), strict=False):
            computed[n] = one
        missing = missing if together is None else []
    for n in missing:
        if cluster is not None:
            computed[n] = cluster.compute(layers[n], settings)
        else:
            layers[n], computed[n] = _compute_here(layers[n], settings, marks)
    return layers, computed


def _compute_here(
    jobs: list[ExtractionJob], settings: RunSettings, marks: ExitStack
) -> tuple[list[ExtractionJob], Computed]:
    """Compute in this process; return the jobs as well, whose key may turn out to be another."""
    marked = [job.place for job in jobs]
    jobs, engine = choose_engine(jobs, settings)
    if [job.place for job in jobs] != marked:
        jobs = [mark_store(job, marks, settings.retry_failed) for job in jobs]
    return jobs, compute(jobs, engine, settings)


def _level(jobs: list[ExtractionJob], settings: RunSettings) -> int:
    """Return the level at which the log says what is done.

    A search asks for stored rows hundreds of times, without progress bars: two lines for each
    would bury the rest in a notebook.
    """
    nothing = not any(job.plan.compute for job in jobs)
    return logging.DEBUG if nothing and settings.progress is False else logging.INFO


def _find_conflicts(job: ExtractionJob, on_conflict: OnConflict) -> list[dict[str, Any]]:
    """Return the examples with several labels; raise or warn as `on_conflict` says."""
    ids = [file.image_id or "" for file in job.files]
    conflicts = label_conflicts(ids, job.dataset.paths, job.dataset.labels)
    if conflicts and on_conflict == "error":
        raise ConflictingLabels(
            f"{describe_conflicts(conflicts)} Correct the labels or remove the files; "
            "on_conflict='warn' continues with a warning.",
            conflicts=conflicts,
        )
    if conflicts and on_conflict == "warn":
        log.warning("%s summary.conflicts lists them.", describe_conflicts(conflicts))
    return conflicts
