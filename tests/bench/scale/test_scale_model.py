"""The model of extraction on a cluster: closed formulas, limits, and figures that were measured."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.scale import model
from bench.scale.calibrate import _SPEC
from bench.scale.constants import Constants
from bench.scale.fluid import seconds_to_compute
from bench.scale.manifest import manifest_cost, race
from bench.scale.model import (
    COMPUTE,
    IDENTIFY,
    LISTING,
    PUSH,
    READING,
    SCHEDULER,
    STORE,
    TASKS,
    opening,
    predict,
)
from bench.scale.scenario import BEFORE, DESIGNS, NEXT, NOW, Design, Scenario
from bench.scale.tables import RECORDED, validation_scenarios
from featcache.errors import InvalidRequest
from featcache.store.bucket.failures import read_failures
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.place import BucketPlace

CONSTANTS = Constants()


def seconds(images: int, workers: int, design: Design = NOW, **options: Any) -> dict[str, float]:
    return dict(predict(Scenario(images, workers, **options), CONSTANTS, design).seconds)


@pytest.mark.parametrize("way", RECORDED)
def test_the_extractions_that_were_measured_are_predicted(way: str) -> None:
    found = predict(validation_scenarios()[way], CONSTANTS, NOW).images_per_second
    assert found == pytest.approx(RECORDED[way], rel=0.15)


@pytest.mark.parametrize("way", ["1 worker", "2 workers"])
def test_what_a_cluster_costs_on_the_cores_of_one_process_is_predicted(way: str) -> None:
    scenarios = validation_scenarios()
    alone, cluster = (
        predict(scenarios[one], CONSTANTS, NOW).images_per_second for one in ("this process", way)
    )
    recorded = RECORDED[way] / RECORDED["this process"]
    assert 0.9 <= cluster / alone < 1
    assert cluster / alone == pytest.approx(recorded, abs=0.1)  # as far as runs differ


def test_two_workers_cannot_compute_more_than_their_machine() -> None:
    two = Scenario(100_000, 2, 2, remote=False, ids="given", loaded=True)
    own, shared = (
        predict(replace(two, machine_cores=cores), CONSTANTS, NOW).total for cores in (None, 2)
    )
    assert shared > 1.8 * own
    assert shared > 100_000 * CONSTANTS.image_core_seconds / 2


def test_more_workers_never_take_longer_to_compute() -> None:
    options: dict[str, Any] = {"remote": False, "ids": "given"}
    for images in (10**5, 10**7, 10**9):
        # Tasks of one size: smaller ones cost more, and more workers get smaller ones.
        found = [
            seconds(images, w, NOW, task_images=2048, **options) for w in (1, 2, 10, 100, 1000)
        ]
        totals = [sum(one.values()) for one in found]
        assert all(b <= a * 1.001 for a, b in itertools.pairwise(totals))


def test_where_more_workers_take_longer_the_limit_has_a_name() -> None:
    rates = {w: predict(Scenario(10**7, w, ids="given"), CONSTANTS, NOW) for w in (100, 1000)}
    assert rates[1000].images_per_second < rates[100].images_per_second
    longer = {c: s - rates[100].seconds[c] for c, s in rates[1000].seconds.items()}
    assert longer[COMPUTE] < 0
    assert max(longer, key=lambda cause: longer[cause]) == SCHEDULER


def test_without_costs_beside_computing_the_pace_is_that_of_the_cores() -> None:
    found = seconds_to_compute(1_000_000, 10, 1000, 5.0, 0.0, 0.0, {})
    assert found == {"computing": pytest.approx(500), "growing": pytest.approx(0)}


def test_a_cost_that_grows_with_the_rows_takes_half_of_its_last_value() -> None:
    found = seconds_to_compute(1_000_000, 10, 1000, 5.0, 1.0, 2e-6, {})
    assert found["growing"] == pytest.approx(100 * (1.0 + 2e-6 * 1_000_000 / 2))


def test_what_is_shared_bounds_the_pace_and_the_parts_add_up() -> None:
    caps = {"a": 1000.0, "b": 5000.0}
    found = seconds_to_compute(1_000_000, 10, 1000, 5.0, 0.0, 0.0, caps)
    assert sum(found.values()) == pytest.approx(1000)
    assert found["a"] == pytest.approx(500)
    assert found["b"] == 0
    slow = seconds_to_compute(1_000_000, 10, 1000, 20.0, 0.0, 0.0, caps)
    assert slow["a"] == 0


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("workers", [0, 1, 30, 1000])
def test_the_causes_add_up_and_none_is_negative(design: Design, workers: int) -> None:
    found = predict(Scenario(3_000_000, workers), CONSTANTS, design)
    assert set(found.seconds) <= set(model.CAUSES)
    assert min(found.seconds.values()) >= 0
    assert found.total == pytest.approx(3_000_000 / found.images_per_second)
    assert found.shards >= found.tasks
    least = 3_000_000 * CONSTANTS.image_core_seconds / (8 * max(workers, 1))
    assert found.seconds[COMPUTE] >= least * 0.999


def test_the_client_that_reads_all_images_first_has_the_pace_of_its_requests() -> None:
    found = seconds(10**6, 10)
    pace = CONSTANTS.get_seconds / CONSTANTS.requests_in_flight
    assert found[IDENTIFY] == pytest.approx(10**6 * pace * CONSTANTS.image_requests)
    assert seconds(10**6, 10, ids="remembered")[IDENTIFY] == pytest.approx(10**6 * pace)
    assert seconds(10**6, 10, ids="given")[IDENTIFY] == 0
    assert seconds(10**6, 10, ids="remembered", remote=False)[IDENTIFY] == 0
    slow = CONSTANTS.replaced({"bandwidth": 1e6})
    assert predict(Scenario(10**6, 10), slow, NOW).seconds[IDENTIFY] == pytest.approx(110_000)


@pytest.mark.parametrize(
    ("cause", "changes", "most"),
    [
        (SCHEDULER, {"task_core_seconds": 0.5}, 2048 / 0.5),
        (STORE, {"gets_per_second": 10.0, "image_prefixes": 20.0}, 100.0),
        (STORE, {"puts_per_second": 1.0}, 2048 / 4),
    ],
)
def test_each_shared_limit_is_reached(cause: str, changes: dict[str, float], most: float) -> None:
    found = predict(Scenario(20_480_000, 200), CONSTANTS.replaced(changes), NOW)
    tasks = sum(found.seconds[one] for one in (COMPUTE, READING, TASKS, LISTING, SCHEDULER, STORE))
    assert found.seconds[cause] > 0
    assert 20_480_000 / tasks == pytest.approx(most, rel=0.01)


def test_workers_wait_for_images_where_requests_take_longer_than_computing() -> None:
    slow = CONSTANTS.replaced({"get_seconds": 0.2, "image_core_seconds": 0.001})
    found = predict(Scenario(10**7, 10), slow, NOW).seconds
    pace = 64 / (0.2 * 2)
    reading = found[READING] + found[COMPUTE]
    assert reading == pytest.approx(10**7 / 10 / pace, rel=0.02)
    quick = CONSTANTS.replaced({"get_seconds": 1e-4, "bandwidth": 1e12})
    assert predict(Scenario(10**7, 10), quick, NOW).seconds[READING] == 0


def test_a_list_that_is_written_as_a_whole_grows_quadratically() -> None:
    written = [manifest_cost(n, BEFORE, CONSTANTS).written for n in (64_000, 128_000)]
    assert written[1] / written[0] == pytest.approx(4, rel=0.01)
    # 1,000 changes, of which the k-th lists 64 k shards.
    assert written[0] == pytest.approx(64 * 1000 * 1001 / 2 * CONSTANTS.manifest_shard_bytes)


def test_changes_with_snapshots_write_less_by_their_interval() -> None:
    pushed = replace(NOW, change_seconds=0.0, shards_per_change=64)
    before, now = (manifest_cost(640_000, design, CONSTANTS) for design in (BEFORE, pushed))
    assert before.changes == now.changes == 10_000
    assert before.written / now.written == pytest.approx(64, rel=0.05)
    assert before.largest == now.largest
    assert now.seconds < before.seconds / 10


def test_the_client_changes_the_list_every_few_seconds_however_many_workers() -> None:
    hour = manifest_cost(100_000, NOW, CONSTANTS, 3600)
    assert hour.changes == 3600 / NOW.change_seconds
    # 11 snapshots, the k-th of 64 k of 720 changes, beside the changes themselves.
    shards = 100_000 * 64 * (11 * 12 / 2) / 720 + 100_000
    assert hour.written == pytest.approx(shards * CONSTANTS.manifest_shard_bytes)
    assert manifest_cost(1, NOW, CONSTANTS).changes == 1
    assert manifest_cost(3, NOW, CONSTANTS, 3600).changes == 3


def test_shards_that_are_pushed_wait_for_two_objects_each() -> None:
    pushed = predict(Scenario(10**7, 10), CONSTANTS, BEFORE)
    size = pushed.row_bytes / CONSTANTS.bandwidth
    assert pushed.seconds[PUSH] == pytest.approx(pushed.shards * 2 * CONSTANTS.put_seconds + size)
    assert PUSH not in predict(Scenario(10**7, 10), CONSTANTS, NOW).seconds


def test_a_worker_that_lists_a_small_store_reads_what_others_have_made_since() -> None:
    images, workers = 1024 * 2048, 16
    found = predict(Scenario(images, workers, task_images=2048, ids="given"), CONSTANTS, NOW)
    expected = _sidecars_of(images, workers) + _changes_of(found)
    assert found.seconds[LISTING] == pytest.approx(expected, rel=0.01)


def _sidecars_of(images: int, workers: int) -> float:
    tasks = images / 2048 / workers  # of each worker
    waiting = CONSTANTS.get_seconds / NOW.sidecars_at_once
    sidecar = CONSTANTS.sidecar_core_seconds + waiting
    row = CONSTANTS.sidecar_row_core_seconds + CONSTANTS.sidecar_row_bytes / CONSTANTS.bandwidth
    sorting = tasks * CONSTANTS.index_core_seconds * images / 2
    return tasks * (workers - 1) * (sidecar + 2048 * row) + sorting


def _changes_of(found: model.Prediction) -> float:
    """Return the seconds in which a worker lists and reads the changes of the list of shards."""
    flow = sum(found.seconds[one] for one in (COMPUTE, READING, TASKS, LISTING))
    assert found.manifest.changes == pytest.approx(flow / NOW.change_seconds, rel=0.02)
    tasks = found.tasks / found.scenario.workers
    names = found.manifest.changes / 2 * tasks
    return found.manifest.changes * CONSTANTS.get_seconds + names / 1000 * CONSTANTS.list_seconds


@pytest.mark.parametrize(("images", "workers"), [(2**25, 16), (10**9, 10)])
def test_of_a_large_store_a_worker_lists_the_changes_alone(images: int, workers: int) -> None:
    scenario = Scenario(images, workers, task_images=2048)
    found = predict(scenario, CONSTANTS, NOW)
    first = 1024 * 2048  # rows, of whose shards it reads the sidecars
    expected = _sidecars_of(first, workers) + _changes_of(found)
    assert found.seconds[LISTING] == pytest.approx(expected, rel=0.01)
    everything = predict(scenario, CONSTANTS, replace(NOW, max_listed=float("inf")))
    assert everything.seconds[LISTING] > 10 * found.seconds[LISTING]
    assert predict(scenario, CONSTANTS, NEXT).seconds[LISTING] == 0


def test_a_worker_waits_for_the_requests_of_each_task() -> None:
    found = predict(Scenario(20_480_000, 100), CONSTANTS, NOW)
    assert found.seconds[TASKS] == pytest.approx(100 * (6 * 0.1 + 3 * 0.05 + 6 * 0.05))
    alone = predict(Scenario(20_480_000, 100), CONSTANTS, NEXT)
    assert alone.seconds[TASKS] == pytest.approx(100 * 2 * CONSTANTS.put_seconds)
    assert alone.dollars["requests"] < found.dollars["requests"]
    for design, remote in ((BEFORE, True), (NOW, False)):
        assert predict(Scenario(10**6, 9, remote=remote), CONSTANTS, design).seconds[TASKS] == 0


def test_the_requests_of_a_task_are_those_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _SPEC
    place = BucketPlace.of(tmp_path / "own", f"memory://{uuid.uuid4().hex}", spec.folder, "abcdef")
    counted: Counter[str] = Counter()

    def task() -> None:
        with ExitStack() as marks:
            place.mark(marks, append=True)
            place.refresh(store)
            store.append(np.ones((1, 4), np.float32), [f"{len(store):064x}"])

    store = place.create(spec, 4, {})
    place.list_through(store, lambda shards: None)
    task()  # which leaves the time of last use
    for name in ("states", "read", "create", "remove"):
        method = getattr(Bucket, name)

        def count(*arguments: Any, _name: str = name, _method: Any = method) -> Any:
            counted[_name] += 1
            return _method(*arguments)

        monkeypatch.setattr(Bucket, name, count)
    task()
    assert counted["states"] + 1 == model.LISTINGS  # no image has failed
    assert counted["read"] == model.READS
    assert counted["create"] + counted["remove"] == model.WRITES + model.SHARD_WRITES


def test_the_objects_of_a_store_are_not_listed_where_no_image_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3fs = pytest.importorskip("s3fs")
    listed: list[str] = []

    async def pages(self: object, bucket: str, prefix: str = "", **options: object) -> Any:
        listed.append(prefix)
        for name in ("a", "b") if prefix == "p/stores/x/" else ():
            yield {"name": f"bucket/{prefix}{name}.h5", "type": "file", "size": 1}

    monkeypatch.setattr(s3fs.S3FileSystem, "_iterdir", pages)
    assert read_failures(Bucket("s3://bucket/p"), "x", tmp_path) == {}
    assert listed == ["p/quarantine/x/", "p/quarantine/"]


def test_an_index_file_is_opened_without_the_ids_of_all_rows() -> None:
    before, now = (opening(10**8, 48_829, CONSTANTS, design) for design in (BEFORE, NOW))
    assert before[1] == 10**8 * CONSTANTS.index_memory_bytes
    assert now[1] < before[1] / 50
    assert now[0] < before[0] / 10


def test_a_writer_alone_succeeds_at_once() -> None:
    found = race(1, 30.0, 0.2, changes=50)
    assert found.attempts == 1
    assert found.seconds == pytest.approx(0.2)


def test_writers_together_succeed_no_more_often_than_one_after_the_other() -> None:
    few, many = race(30, 30.0, 0.2, changes=300), race(1000, 30.0, 0.2, changes=500)
    assert few.per_second == pytest.approx(1.0, rel=0.15)  # as many as they make
    assert few.attempts < 2
    assert many.per_second <= 1 / 0.2
    assert many.attempts > 50  # the most that the code makes


def test_what_does_not_fit_into_memory_is_said() -> None:
    assert predict(Scenario(10**7, 10), CONSTANTS, BEFORE).impossible == ()
    reasons = predict(Scenario(2 * 10**9, 10), CONSTANTS, BEFORE).impossible
    assert [why.split()[1] for why in reasons] == ["client", "worker", "manifest"]


def test_machines_requests_and_storage_cost_what_their_prices_say() -> None:
    found = predict(Scenario(10**6, 10), CONSTANTS, NOW)
    hours = found.total / 3600 * (10 * 8 + 8)
    assert found.dollars["machines"] == pytest.approx(hours * CONSTANTS.core_hour)
    gigabytes = (10**6 * 1280 * 4 + found.shards * CONSTANTS.shard_extra_bytes) / 1e9
    assert found.dollars["storage"] == pytest.approx(gigabytes * CONSTANTS.gigabyte_month)
    assert found.dollars["requests"] > 2 * 10**6 * CONSTANTS.thousand_gets / 1e3
    local = predict(Scenario(10**6, 10, remote=False), CONSTANTS, NOW)
    assert local.dollars["requests"] == 0


def test_the_figures_of_the_code_are_those_of_the_code() -> None:
    from featcache.data.read_ahead import MAX_REQUESTS
    from featcache.extraction.cluster import tasks, worker
    from featcache.store import index_file, manifest
    from featcache.store.bucket import lister, manifests, push, store

    assert (model.MAX_TASK_IMAGES, model.MIN_TASK_IMAGES, model.TASKS_PER_THREAD) == (
        tasks.MAX_TASK_IMAGES, tasks._MIN_TASK_IMAGES, tasks._TASKS_PER_THREAD,
    )  # fmt: skip
    assert worker.COMMIT_SECONDS == model.COMMIT_SECONDS
    assert manifest.MAX_BYTES == model.MAX_MANIFEST_BYTES
    assert NOW.snapshot_every == manifests.SNAPSHOT_EVERY
    assert BEFORE.shards_per_change == push._SHARDS_PER_CHANGE
    assert CONSTANTS.requests_in_flight == MAX_REQUESTS
    assert NOW.change_seconds == lister.LIST_SECONDS
    assert (NOW.sidecars_at_once, NOW.max_listed) == (store._REQUESTS, store.MAX_LISTED)
    per_page = index_file.ROWS_PER_PAGE
    assert CONSTANTS.index_row_bytes == index_file.PAGE_BYTES / per_page
    assert CONSTANTS.index_page_bytes == index_file.ROW["key"].itemsize / per_page


@pytest.mark.parametrize("options", [{"images": 0}, {"workers": -1}, {"ids": "old"}])
def test_a_scenario_of_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"it must be|choose from"):
        replace(Scenario(1, 1), **options)
