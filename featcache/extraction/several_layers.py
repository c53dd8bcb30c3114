"""Several layers of a backbone in one pass: one row per image, its columns in a store per layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from .._io.logs import get_logger
from .._io.progress import ProgressBar, progress_bar
from ..backbones.several_layers import build_layers, layers_spec, share_a_network
from ..engines.devices import parse_devices
from ..engines.engine import Engine
from ..engines.select import EngineRequest, load_converted_engine, make_engine
from ..errors import NoFiniteRow
from ..images.image_file import BadImage
from ..store.store import Store
from .compute import (
    Computed,
    RunSettings,
    check_disk,
    create_stores,
    quarantine_failures,
)
from .pipeline import default_workers
from .prepare import ExtractionJob
from .row_check import RowCheck
from .runner import Computation, Item, Work, make_work

log = get_logger(__name__)

Layers = Sequence[Sequence[ExtractionJob]]  # the jobs of all views, of each layer


@dataclass
class LayerOutput:
    """Where the columns of a layer go.

    Attributes
    ----------
    layer : str
    columns : slice
        Its columns among those of all layers.
    stores : list of Store
        The store of each view.
    wanted : list of set of str
        For each view, the example ids of the rows that the store lacks.
    check : RowCheck
    unusable : list of (Item, BadImage)
        Rows that were computed and cannot be stored.
    """

    layer: str
    columns: slice
    stores: list[Store]
    wanted: list[set[str]]
    check: RowCheck
    unusable: list[tuple[Item, BadImage]] = field(default_factory=list)

    def failures(self, unreadable: Sequence[dict[str, BadImage]]) -> list[dict[str, BadImage]]:
        """Return the reasons of the layer's missing rows by view and example id."""
        found = [
            {i: bad for i, bad in each.items() if i in wanted}
            for each, wanted in zip(unreadable, self.wanted, strict=True)
        ]
        # Without any usable row the model is at fault, not the images.
        for item, bad in self.unusable if self.check.any_usable else ():
            found[item.view][item.image_id] = bad
        return found


class LayersCheck:
    """Checks the rows of each layer by itself."""

    def __init__(self, outputs: Sequence[LayerOutput]) -> None:
        self._outputs = outputs

    @property
    def any_usable(self) -> bool:
        """Whether a row of any layer could be stored."""
        return any(output.check.any_usable for output in self._outputs)

    def update(self, rows: NDArray[np.float32]) -> None:
        """Check a batch of rows of all layers."""
        for output in self._outputs:
            with _naming(output.layer):
                output.check.update(rows[:, output.columns])

    def finish(self) -> None:
        """Check the rows as a whole."""
        for output in self._outputs:
            with _naming(output.layer):
                output.check.finish()


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    """Name the layer in the error for a layer without usable rows."""
    try:
        yield
    except NoFiniteRow as error:
        raise NoFiniteRow(
            f"Layer {layer!r}: {error.message} Or leave out this layer: rows of the others that "
            "were committed are kept.",
            received=error.received,
            images=error.images,
        ) from error


class LayersComputation(Computation):
    """Computes the rows of several layers in one pass, and commits those that each store lacks."""

    def __init__(
        self,
        work: Work,
        engine: Engine,
        outputs: Sequence[LayerOutput],
        bar: ProgressBar,
        commit_seconds: float | None,
    ) -> None:
        check = LayersCheck(outputs)
        super().__init__(work, engine, outputs[0].stores, bar, check, commit_seconds)
        self._outputs = outputs

    def _store(
        self,
        stores: Sequence[Store],
        rows: NDArray[np.float32],
        items: Sequence[Item],
        seconds_per_row: float,
    ) -> list[tuple[Item, BadImage]]:
        for output in self._outputs:
            chosen = [n for n, i in enumerate(items) if i.image_id in output.wanted[i.view]]
            if chosen:
                output.unusable += super()._store(
                    output.stores, rows[chosen, output.columns], [items[n] for n in chosen],
                    seconds_per_row / len(self._outputs),
                )  # fmt: skip
        return []  # each layer has its own


def compute_layers(layers: Layers, settings: RunSettings) -> list[Computed] | None:
    """Compute and commit what the plans of several layers list, in one pass.

    Returns
    -------
    list of Computed, or None
        Of each layer. None if they have to be computed one after the other: of networks that are
        not Keras models, and if the network is not the one that the plans are for.
    """
    if not share_a_network([jobs[0].resolved.request for jobs in layers]):
        return None
    work = _work(layers)
    found = _choose_engine(layers, settings, len(work.items))
    if found is None:
        return None
    engine, widths = found
    check_disk(list(zip(layers, widths, strict=True)))
    outputs = _outputs(layers, widths)
    name = layers[0][0].resolved.request.name
    with progress_bar(len(work.items), name, "images", settings.progress) as bar:
        seconds = layers[0][0].place.commit_seconds
        computation = LayersComputation(work, engine, outputs, bar, seconds)
        try:
            computation.run(settings.workers or default_workers(engine.devices))
        except KeyboardInterrupt:
            log.warning("Interrupted. Committed rows are kept; the same call resumes.")
            raise
        finally:
            failures = [output.failures(computation.failures) for output in outputs]
            for output, of_layer in zip(outputs, failures, strict=True):
                for store, bad in zip(output.stores, of_layer, strict=True):
                    quarantine_failures(store, bad)
    for output, jobs in zip(outputs, layers, strict=True):
        for job, store in zip(jobs, output.stores, strict=True):
            if job.plan.compute:
                job.place.complete(store)
    return [Computed(bad, engine.name, computation.timings) for bad in failures]


def _work(layers: Layers) -> Work:
    """Return the views of images that any of the layers lacks."""
    jobs = []
    for of_view in zip(*layers, strict=True):
        lacking = {i: position for job in of_view for position, i in job.plan.compute}
        compute = sorted((position, i) for i, position in lacking.items())
        jobs.append(replace(of_view[0], plan=replace(of_view[0].plan, compute=compute)))
    return make_work(jobs)


def _choose_engine(
    layers: Layers, settings: RunSettings, images: int
) -> tuple[Engine, list[int]] | None:
    """Return an engine that gives all layers side by side, and their widths."""
    resolved = [jobs[0].resolved for jobs in layers]
    cache, widths = layers[0][0].cache.folder, [one.width for one in resolved]
    spec = layers_spec([one.spec for one in resolved])
    request = EngineRequest(
        settings.engine, resolved[0].request, spec, cache, images, settings.batch_size,
        parse_devices(settings.devices),
    )  # fmt: skip
    engine = load_converted_engine(request)
    if engine is not None and engine.width == sum(widths):
        return engine, widths
    backbone = build_layers(resolved)
    if backbone is None:
        return None
    return make_engine(request, backbone), widths


def _outputs(layers: Layers, widths: Sequence[int]) -> list[LayerOutput]:
    ends = np.cumsum(widths).tolist()
    outputs = []
    for jobs, width, end in zip(layers, widths, ends, strict=True):
        stores = create_stores(jobs, width)
        check = RowCheck(jobs[0].resolved, sum(map(len, stores)))
        wanted = [{image_id for _, image_id in job.plan.compute} for job in jobs]
        layer = jobs[0].resolved.spec.layer
        outputs.append(LayerOutput(layer, slice(end - width, end), stores, wanted, check))
    return outputs
