"""Prepare an extraction: list the images, find their ids and the spec, and plan."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path, PurePath
from typing import Any, overload

from .._io import cache_dirs
from .._io.progress import progress_bar
from ..backbones.keras_types import BackboneLike
from ..backbones.preprocessing import Rule
from ..backbones.request import BackboneOptions, Request, make_request
from ..backbones.resolve import ResolvedBackbone, resolve
from ..backbones.spec import BackboneSpec
from ..backbones.weights import WeightsLike
from ..data.boxes import Crop, cropped
from ..data.dataset import Dataset
from ..data.file_index import FileIdentity
from ..data.tables import COLUMNS_REASON
from ..data.urls import is_url
from ..datasets.load import load_dataset
from ..errors import DatasetError, InvalidRequest, StoreMismatch
from ..images.image_file import example_id
from ..images.views import Augmentation, Policy, View, views_of
from ..store.manifest import NAME as MANIFEST_NAME
from ..store.place import Place, place_of
from ..store.store import Store
from .pipeline import default_workers
from .plan import Explanation, Plan, make_plan, nearest_store


@dataclass(frozen=True)
class Cache:
    """The caches of an extraction.

    Attributes
    ----------
    folder : Path
        The cache folder: stores, and whatever else is kept here.
    url : str or None
        Where the stores are instead, in an object store.
    shared : Path, str or None
        Folder or URL of the shared cache, which is only read.
    writer : str
        As for `featcache.store.place.place_of`.
    """

    folder: Path
    url: str | None = None
    shared: Path | str | None = None
    writer: str = ""

    def place(self, spec: BackboneSpec) -> Place:
        """Return where the store of a spec lies."""
        return place_of(self.folder, self.url, spec.folder, self.writer)


@dataclass(frozen=True)
class ExtractionJob:
    """A prepared extraction of one view: everything that is determined before any computation.

    `contents` identifies the file of each image, `files` the example: they differ for cropped
    photos, whose example id depends on the box as well. The spec of `resolved` is the view's.
    `shared` is the store of the same key in the shared cache, which is only read.
    """

    dataset: Dataset
    contents: list[FileIdentity]
    files: list[FileIdentity]
    resolved: ResolvedBackbone
    cache: Cache
    store: Store | None
    plan: Plan
    view: View
    shared: Store | None = None

    @property
    def place(self) -> Place:
        """Where the store lies, whether it exists or not."""
        return self.cache.place(self.resolved.spec)

    def open_store(self) -> Store | None:
        """Open the store as it is now; return None if there is none."""
        return _open_store(self.place, self.resolved)


@dataclass(frozen=True)
class Source:
    """The arguments of `featcache.extract` that select the images."""

    data: object
    labels: Iterable[object] | None
    crop: Crop | None
    margin: float
    value_range: tuple[float, float] | None = None
    path_column: str | None = None
    label_column: str | None = None

    def load(self, cache: Path, progress: bool | None) -> Dataset:
        """Load the data set; without `data`, the one in ``FEATCACHE_DATA`` or the sample."""
        if self.data is None and (self.path_column, self.label_column) != (None, None):
            raise DatasetError(COLUMNS_REASON)
        if self.data is None:
            return cropped(default_data(cache, progress), self.crop, self.margin)
        return load_dataset(
            self.data, self.labels, crop=self.crop, margin=self.margin,
            value_range=self.value_range, path_column=self.path_column,
            label_column=self.label_column, cache_dir=cache,
        )  # fmt: skip


def explain(
    backbone: BackboneLike,
    data: object = None,
    *,
    labels: Iterable[object] | None = None,
    crop: Crop | None = None,
    margin: float = 0.0,
    value_range: tuple[float, float] | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    workers: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    retry_failed: bool = False,
    progress: bool | None = None,
    shared_dir: str | os.PathLike[str] | None = None,
    preprocessing: Rule | None = None,
    views: int = 1,
    augmentation: Augmentation | Policy | None = None,
    random_state: int = 0,
    **backbone_options: Any,
) -> Explanation:
    """Return what `extract` would do with the same arguments, without computing embeddings.

    Parameters
    ----------
    backbone, data, ...
        As for `extract`.

    Returns
    -------
    Explanation
        Numbers of images, the store's folder and, if it does not exist, the nearest store and
        the components of the key in which that differs. ``str()`` of it is one line of text.
        With several views, numbers of views of images, and the store of the unchanged images.

    Raises
    ------
    UnknownBackbone, UnknownLayer, InvalidRequest, ModelRefused
        If an argument is not accepted, as in `extract`.
    DatasetError, DatasetNotFound
        If the images cannot be listed.
    WeightsUnavailable, WeightsMismatch
        If the weights are unavailable or do not fit: they are part of the key.

    Examples
    --------
    >>> explain("pocket").spec.backbone
    'pocket'
    """
    weights = backbone_options.get("weights", "auto")
    backbone_options["weights"] = weights_for(weights, sample=uses_sample(data))
    request = make_request(
        backbone, BackboneOptions(preprocessing=preprocessing, **backbone_options)
    )
    chosen = views_of(views, augmentation, random_state)
    source = Source(data, labels, crop, margin, value_range, path_column, label_column)
    return make_explanation(
        prepare(request, source, chosen, cache_dir, workers, retry_failed, progress, shared_dir)
    )


def uses_sample(data: object) -> bool:
    """Return whether the argument `data` stands for the sample of drawn dogs."""
    return data is None and not os.environ.get(cache_dirs.DATA_VARIABLE)


@overload
def weights_for(weights: str, *, sample: bool) -> str: ...


@overload
def weights_for(weights: WeightsLike, *, sample: bool) -> WeightsLike: ...


def weights_for(weights: WeightsLike, *, sample: bool) -> WeightsLike:
    """Return the argument ``weights=``; for "auto" on the sample, weights that may be random."""
    automatic = isinstance(weights, str) and weights == "auto"
    return "imagenet-or-random" if sample and automatic else weights


def prepare(
    request: Request,
    source: Source,
    views: Sequence[View],
    cache_dir: str | os.PathLike[str] | None,
    workers: int | None,
    retry_failed: bool,
    progress: bool | None,
    shared_dir: str | os.PathLike[str] | None = None,
) -> list[ExtractionJob]:
    """List the images, find their content ids and the spec, and compare with each view's store."""
    return prepare_layers(
        [request], source, views, cache_dir, workers, retry_failed, progress, shared_dir
    )[0]


def prepare_layers(
    requests: Sequence[Request],
    source: Source,
    views: Sequence[View],
    cache_dir: str | os.PathLike[str] | None,
    workers: int | None,
    retry_failed: bool,
    progress: bool | None,
    shared_dir: str | os.PathLike[str] | None = None,
) -> list[list[ExtractionJob]]:
    """Prepare the extraction of several layers of one backbone from the same images."""
    cache = find_cache(cache_dir, shared_dir)
    cache_dirs.warn_if_shared(cache.folder)
    dataset = source.load(cache.folder, progress)
    # Before the images are read, so that a model that cannot be used is refused at once.
    folder = cache_dirs.weights_folder(cache.folder)
    resolved = [resolve(replace(request, crop=dataset.crop), folder) for request in requests]
    if len(resolved) > 1:
        _check_different(resolved)
        # A model per layer would take the memory of as many networks.
        resolved = [ResolvedBackbone(one.request, one.spec, one.width) for one in resolved]
    if dataset.ids is not None:
        contents = [FileIdentity(image_id) for image_id in dataset.ids]
    else:
        with progress_bar(len(dataset), "Identifying", "images", progress) as bar:
            contents = dataset.source.identify(
                cache_dirs.index_folder(cache.folder), workers or default_workers(), bar.update
            )
    files = make_examples(dataset, contents)
    return [
        [make_job(dataset, contents, files, one, cache, retry_failed, view) for view in views]
        for one in resolved
    ]


def _check_different(resolved: Sequence[ResolvedBackbone]) -> None:
    """Raise `InvalidRequest` if a layer was asked for twice."""
    specs = [one.spec for one in resolved]
    twice = next((spec.layer for spec in specs if specs.count(spec) > 1), None)
    if twice is not None:
        raise InvalidRequest(
            f"layer={[one.request.layer for one in resolved]!r} names the layer {twice!r} twice, "
            "so that each of its values would count twice; name each layer once.",
            received=twice,
        )


def plan_again(job: ExtractionJob, resolved: ResolvedBackbone, retry_failed: bool) -> ExtractionJob:
    """Compare a job's data set with the store of its view as it is now, or of another backbone."""
    return make_job(
        job.dataset, job.contents, job.files, resolved, job.cache, retry_failed, job.view
    )


def make_job(
    dataset: Dataset,
    contents: list[FileIdentity],
    files: list[FileIdentity],
    resolved: ResolvedBackbone,
    cache: Cache,
    retry_failed: bool,
    view: View,
    store: Store | None = None,
) -> ExtractionJob:
    """Compare a data set with the store of a view, and plan the extraction.

    The store is opened unless one is given, which is up to date.
    """
    resolved = replace(resolved, spec=replace(resolved.spec, views=view.key))
    if store is None:
        store = _open_store(cache.place(resolved.spec), resolved)
    shared = _open_shared(resolved, cache)
    ids = [file.image_id for file in files if file.image_id is not None]
    stored: set[str] = set()
    for one in (store, shared) if ids else ():
        if one is not None:
            stored |= set(compress(ids, one.contains(ids, confirm=True)))
    failed = store.quarantined if store is not None else {}
    plan = make_plan(files, stored, failed, retry_failed=retry_failed)
    return ExtractionJob(dataset, contents, files, resolved, cache, store, plan, view, shared)


def find_cache(
    cache_dir: str | os.PathLike[str] | None, shared_dir: str | os.PathLike[str] | None = None
) -> Cache:
    """Return the caches that the arguments of `extract` and the environment name."""
    url = cache_dirs.cache_url(cache_dir)
    if url is not None:
        from ..store.bucket.objects import Bucket  # imports fsspec

        Bucket(url)  # raises if it is not accepted, before any image is read
    shared = shared_dir or os.environ.get(cache_dirs.SHARED_VARIABLE)
    return Cache(
        cache_dirs.cache_folder(cache_dir),
        url,
        str(shared) if is_url(shared) else cache_dirs.shared_folder(shared),
    )


def _open_shared(resolved: ResolvedBackbone, cache: Cache) -> Store | None:
    """Open the store of a spec in the shared cache; return None if there is none."""
    shared = cache.shared
    if shared is None:
        return None
    found: Store | None = None
    folder = cache_dirs.stores_folder(Path(shared)) / resolved.spec.folder
    if isinstance(shared, str):
        from ..store.bucket.store import find_bucket_store  # imports fsspec

        found = find_bucket_store(shared, resolved.spec.folder, cache.folder)
    elif (folder / MANIFEST_NAME).is_file():
        found = Store(folder, write_sidecars=False)
    if found is not None and (found.spec != resolved.spec or found.width != resolved.width):
        raise StoreMismatch(
            f"The rows in the shared store {found.location} have width {found.width} and key "
            f"{found.spec.key[:16]}, but the backbone gives width {resolved.width} and key "
            f"{resolved.spec.key[:16]}. `featcache verify` says what is damaged.",
            path=found.location,
            stored=found.spec,
            requested=resolved.spec,
        )
    return found


def _open_store(place: Place, resolved: ResolvedBackbone) -> Store | None:
    """Open the store of a spec; return None if there is none."""
    return place.open(resolved.spec, resolved.width, resolved.request.metadata())


def make_examples(dataset: Dataset, contents: list[FileIdentity]) -> list[FileIdentity]:
    """Return the example id of each image: of its file, or of its file and box."""
    if dataset.boxes is None:
        return contents
    return [
        file if file.image_id is None else FileIdentity(example_id(file.image_id, box))
        for file, box in zip(contents, dataset.boxes, strict=True)
    ]


def default_data(cache: Path, progress: bool | None = None) -> Dataset:
    """Load the data set in ``FEATCACHE_DATA``, else the sample of drawn dogs."""
    folder = os.environ.get(cache_dirs.DATA_VARIABLE)
    if folder:
        return load_dataset(folder)
    from ..datasets import sample

    return sample(cache, progress=progress)


def make_explanation(jobs: Sequence[ExtractionJob]) -> Explanation:
    """Explain the plans of all views; if the first has no store, compare with the nearest one."""
    job = jobs[0]
    spec = job.resolved.spec
    nearest: PurePath | None = None
    names: list[str] = []
    values: dict[str, tuple[str, str]] = {}
    if job.store is None:
        stores = list(job.place.stores())
        manifests = dict(stores)
        found = nearest_store(spec, [(folder, manifest.spec) for folder, manifest in stores])
        if found is not None:
            nearest, _, names = found
            requested = {**spec.all_values(), **job.resolved.request.metadata()}
            stored = {**manifests[nearest].spec.all_values(), **manifests[nearest].metadata}
            values = {name: (str(stored[name]), str(requested[name])) for name in names}
    return Explanation(
        images=len(job.dataset),
        stored=sum(job.plan.stored for job in jobs),
        to_compute=sum(len(job.plan.compute) for job in jobs),
        quarantined=len(set().union(*(job.plan.quarantined for job in jobs))),
        folder=job.place.location,
        exists=job.store is not None,
        spec=spec,
        nearest=nearest,
        differs_in=names,
        values=values,
        views=len(jobs),
    )
