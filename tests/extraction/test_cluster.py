"""Extraction on a Dask cluster, whose worker is a thread of this process: what tasks come to."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import featcache
import featcache.errors
from conftest import photo
from featcache.cli import main
from featcache.errors import ClusterError, InvalidRequest, NoFiniteRow, StoreError, WorkerRefused
from featcache.extraction.cluster import worker as worker_module
from featcache.extraction.cluster.tasks import Outcome, choose_task_size, make_tasks
from featcache.extraction.compute import RunSettings
from featcache.store.bucket.place import BucketPlace
from featcache.store.lease import Lease

distributed = pytest.importorskip("distributed")

OPTIONS: dict[str, Any] = {"engine": "keras", "batch_size": 4, "progress": False}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A cluster of one worker, a thread of this process."""
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


def test_a_cluster_gives_the_rows_and_labels_of_this_process(
    client: Any, photos: Path, tmp_path: Path
) -> None:
    (photos / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    here = featcache.extract("pocket", photos, cache_dir=tmp_path / "here", **OPTIONS)
    there = featcache.extract(
        "pocket", photos, cache_dir=tmp_path / "there", client=client, task_size=4, **OPTIONS
    )
    np.testing.assert_array_equal(there.X, here.X)
    np.testing.assert_array_equal(there.y, here.y)
    assert (there.ids, there.paths, there.classes) == (here.ids, here.paths, here.classes)
    assert there.quarantined == here.quarantined
    assert (there.summary.computed, there.summary.engine) == (12, "keras")
    (worker,) = there.summary.workers
    assert worker.images == 12
    assert worker.images_per_second > 0
    assert worker.name in str(worker)
    assert "by 1 worker;" in str(there.summary)
    assert featcache.verify(there.summary.folder) == []
    # Nothing is left to compute: no task, and the broken file is remembered.
    again = featcache.extract(
        "pocket", photos, cache_dir=tmp_path / "there", client=client, **OPTIONS
    )
    assert (again.summary.stored, again.summary.computed, len(again.quarantined)) == (12, 0, 1)
    assert again.summary.workers == ()


def test_views_and_boxes_travel_with_the_task(client: Any, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    rows = [f"{path},0,{i % 3},12,15" for i, path in enumerate(sorted(photos.rglob("*.png")))]
    table.write_text("\n".join(["path,left,top,right,bottom", *rows]))
    chosen = {**OPTIONS, "crop": "box", "views": 2, "augmentation": "flip"}
    here = featcache.extract("pocket", table, cache_dir=tmp_path / "here", **chosen)
    featcache.extract(
        "pocket", table, crop="box", cache_dir=tmp_path / "there", client=client, **OPTIONS
    )
    there = featcache.extract(
        "pocket", table, cache_dir=tmp_path / "there", client=client, **chosen
    )
    assert (there.summary.stored, there.summary.computed) == (12, 12)
    np.testing.assert_allclose(there.X, here.X, atol=1e-4)
    assert there.ids == here.ids


def test_rows_are_kept_in_an_object_store(
    client: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    url = f"file://{tmp_path}/bucket"
    chosen = {**OPTIONS, "views": 2, "augmentation": "flip", "task_size": 4}
    here = featcache.extract("pocket", photos, cache_dir=tmp_path / "here", **OPTIONS)
    alone = featcache.extract("pocket", photos, cache_dir=url, client=client, **OPTIONS)
    np.testing.assert_array_equal(alone.X, here.X)
    with monkeypatch.context() as patch:
        patch.setattr(BucketPlace, "lister", Forgetful)
        patch.setattr("featcache.extraction.cluster.outcomes.VISIBLE_SECONDS", 0.1)
        with pytest.raises(ClusterError, match=r"cannot see all of them.*in an object store"):
            featcache.extract("pocket", photos, cache_dir=url, client=client, **chosen)
    there = featcache.extract("pocket", photos, cache_dir=url, client=client, **chosen)
    assert (there.summary.stored, there.summary.computed) == (12, 12)
    np.testing.assert_array_equal(there.X[:12], here.X)
    found = featcache.open_store(alone.summary.folder)
    assert len(found) == sum(len(found.ids_in(name)) for name in found.shard_names) == 12


class Forgetful:
    """As if the client were killed before it has listed any shard."""

    def __call__(self, shards: Any) -> None: ...

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *details: object) -> None: ...


def test_a_worker_that_does_not_reach_the_bucket_is_refused(
    client: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    other = f"file://{tmp_path}/other"

    def elsewhere(*arguments: Any) -> Any:
        return [replace(task, cache=other) for task in make_tasks(*arguments)]

    monkeypatch.setattr("featcache.extraction.cluster.driver.make_tasks", elsewhere)
    monkeypatch.setattr(worker_module, "MARK_SECONDS", 0.3)
    with pytest.raises(WorkerRefused, match=r"does not see use-.*at the same\s+endpoint"):
        featcache.extract("pocket", photos, cache_dir=f"file://{tmp_path}/b", client=client,
                          **OPTIONS)  # fmt: skip
    assert not Path(tmp_path, "other", "stores").exists()


def test_urls_are_read_by_the_workers(client: Any, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    paths = sorted(photos.rglob("*.png"))
    urls = [f"file://{path}" for path in paths[:6]] + [str(path) for path in paths[6:]]
    here = featcache.extract("pocket", paths, cache_dir=tmp_path / "here", **OPTIONS)
    there = featcache.extract("pocket", urls, cache_dir=tmp_path / "b", client=client, **OPTIONS)
    np.testing.assert_array_equal(there.X, here.X)


def test_images_and_models_in_memory_are_refused_before_anything_is_sent(
    client: Any, photos: Path, tiny_model: Any, tmp_path: Path
) -> None:
    pixels = np.zeros((3, 16, 16, 3), np.uint8)
    with pytest.raises(InvalidRequest, match=r"Save them as files on a\s+disk that all workers"):
        featcache.extract("pocket", pixels, client=client, **OPTIONS)
    with pytest.raises(InvalidRequest, match=r"model.save\('model.keras'\)"):
        featcache.extract(tiny_model, photos, client=client, **OPTIONS)


def test_a_saved_model_is_loaded_by_the_workers(
    client: Any, photos: Path, tiny_model: Any, tmp_path: Path
) -> None:
    tiny_model.save(tmp_path / "tiny.keras")
    here = featcache.extract(
        tmp_path / "tiny.keras", photos, cache_dir=tmp_path / "here", **OPTIONS
    )
    there = featcache.extract(
        tmp_path / "tiny.keras", photos, cache_dir=tmp_path / "there", client=client, **OPTIONS
    )
    np.testing.assert_array_equal(there.X, here.X)


def test_only_a_client_is_accepted(photos: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"client= is 'tcp://host:8786'; pass a distributed"):
        featcache.extract("pocket", photos, client="tcp://host:8786")
    with pytest.raises(InvalidRequest, match="task_size=0 must be a whole number from 1"):
        featcache.extract("pocket", photos, task_size=0)


def test_a_worker_of_another_version_is_refused_with_the_reason(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # It joins later: the check before the first task does not see it.
        patch.setattr(worker_module, "__version__", "0.0.1")
        with pytest.raises(WorkerRefused, match=r"has featcache 0.0.1, and the client") as caught:
            featcache.extract("pocket", photos, client=client, **OPTIONS)
    assert "inproc://" in str(caught.value.worker)
    assert caught.value.reason == "it has featcache 0.0.1"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "featcache._version", None)
        with pytest.raises(WorkerRefused, match="featcache is not installed there"):
            featcache.extract("pocket", photos, client=client, **OPTIONS)
    monkeypatch.setattr("featcache._version.__version__", "0.0.2")
    with pytest.raises(WorkerRefused, match=r"has featcache 0.0.2, and the client has"):
        featcache.extract("pocket", photos, client=client, **OPTIONS)


def test_a_worker_with_other_weights_stores_nothing(
    client: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker_module.resolve

    def other(request: Any, folder: Path) -> Any:
        found = real(request, folder)
        return replace(found, spec=replace(found.spec, weights="0" * 64))

    monkeypatch.setattr(worker_module, "resolve", other)
    monkeypatch.setattr(worker_module, "_LOADED", worker_module._Loaded())
    with pytest.raises(WorkerRefused, match=r"another key, which differs in weights \(0000"):
        featcache.extract("pocket", photos, cache_dir=tmp_path / "c", client=client, **OPTIONS)
    assert list((tmp_path / "c" / "stores").iterdir()) == []


def test_a_worker_that_does_not_share_the_cache_is_refused(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*arguments: Any) -> Any:
        return [replace(task, mark="/nowhere/mark") for task in make_tasks(*arguments)]

    monkeypatch.setattr("featcache.extraction.cluster.driver.make_tasks", elsewhere)
    monkeypatch.setattr(worker_module, "MARK_SECONDS", 0.3)
    with pytest.raises(WorkerRefused, match="does not see /nowhere/mark, which the client wrote"):
        featcache.extract("pocket", photos, client=client, **OPTIONS)


def test_a_worker_that_does_not_share_the_images_is_refused(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*arguments: Any) -> Any:
        return [
            replace(task, locations=tuple(f"/nowhere{path}" for path in task.locations))
            for task in make_tasks(*arguments)
        ]

    monkeypatch.setattr("featcache.extraction.cluster.driver.make_tasks", elsewhere)
    with pytest.raises(WorkerRefused, match="could read none of 12 images, such as /nowhere/"):
        featcache.extract("pocket", photos, client=client, **OPTIONS)


def test_images_that_were_removed_are_left_out_as_without_a_cluster(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*arguments: Any) -> Any:
        found = make_tasks(*arguments)
        for path in sorted(photos.rglob("*.png"))[:4]:  # the whole first task
            path.unlink()
        return found

    monkeypatch.setattr("featcache.extraction.cluster.driver.make_tasks", late)
    found = featcache.extract("pocket", photos, client=client, task_size=4, **OPTIONS)
    assert [bad.position for bad in found.quarantined] == [0, 1, 2, 3]
    assert found.X.shape[0] == 8


def test_a_store_that_the_client_cannot_write_to_is_an_error(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def refused(folder: Path) -> Iterator[Lease]:
        yield Lease(folder / "mark", refused=OSError(errno.EROFS, "Read-only file system"))

    monkeypatch.setattr("featcache.store.place.mark_in_use", refused)
    with pytest.raises(StoreError, match="could not be read or changed: Read-only file system"):
        featcache.extract("pocket", photos, client=client, **OPTIONS)


def test_errors_of_a_worker_have_the_types_of_this_process(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    featcache.extract("pocket", photos, client=client, **OPTIONS)  # the driver knows the key

    def unavailable(*_: Any) -> Any:
        raise featcache.errors.WeightsUnavailable("There is no file.", file="w.h5")

    monkeypatch.setattr(worker_module, "resolve", unavailable)
    monkeypatch.setattr(worker_module, "_LOADED", worker_module._Loaded())
    photo(photos / "cat" / "new.png", 99)
    with pytest.raises(featcache.errors.WeightsUnavailable, match=r"The worker 0 .* cannot go on"):
        featcache.extract("pocket", photos, client=client, **OPTIONS)


def test_a_model_without_a_finite_row_is_an_error(
    client: Any, photos: Path, tiny_model: Any, tmp_path: Path
) -> None:
    import keras

    model = keras.models.clone_model(tiny_model)
    model.set_weights([np.full_like(w, 3e38) for w in model.get_weights()])
    model.save(tmp_path / "huge.keras")
    with pytest.raises(NoFiniteRow, match="None of the rows of 12 valid images is finite"):
        featcache.extract(tmp_path / "huge.keras", photos, client=client, task_size=4, **OPTIONS)
    again = featcache.explain(tmp_path / "huge.keras", photos)
    assert (again.to_compute, again.quarantined) == (12, 0)


def test_a_task_that_fails_each_time_is_named_after_the_others_are_stored(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker_module._compute

    def fails(task: Any, worker: Any) -> Any:
        if task.number == 0:
            raise OSError("the disk is away")
        return real(task, worker)

    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "_compute", fails)
        with pytest.raises(ClusterError, match="4 images could not be computed: '") as caught:
            featcache.extract("pocket", photos, client=client, task_size=4, **OPTIONS)
    assert caught.value.images == list(map(str, sorted(photos.rglob("*.png"))[:4]))
    assert "OSError: the disk is away" in str(caught.value)
    found = featcache.extract("pocket", photos, client=client, **OPTIONS)
    assert (found.summary.stored, found.summary.computed) == (8, 4)


def test_tasks_beside_one_that_kills_its_workers_run_again_alone(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker_module._compute
    runs: list[int] = []
    error = distributed.KilledWorker("a task", SimpleNamespace(address="tcp://w"), 3)

    def killed(task: Any, worker: Any) -> Any:
        runs.append(task.number)
        if task.number == 0 or (task.number == 1 and runs.count(1) <= 3):
            raise error
        return real(task, worker)

    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "_compute", killed)
        with pytest.raises(ClusterError, match="4 images could not be computed") as caught:
            featcache.extract("pocket", photos, client=client, task_size=4, **OPTIONS)
    assert caught.value.images == list(map(str, sorted(photos.rglob("*.png"))[:4]))
    assert sorted(runs[:7]) == [0, 0, 0, 1, 1, 1, 2]
    assert runs[7:] in ([0, 0, 0, 1], [1, 0, 0, 0])
    found = featcache.extract("pocket", photos, client=client, **OPTIONS)
    assert (found.summary.stored, found.summary.computed) == (8, 4)


def test_rows_that_the_client_cannot_see_are_an_error(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.extraction.cluster.outcomes.VISIBLE_SECONDS", 0.6)
    nothing = Outcome("w", failures=({},))
    monkeypatch.setattr(worker_module, "_compute", lambda task, worker: nothing)
    with pytest.raises(ClusterError, match="this client cannot see all of them"):
        featcache.extract("pocket", photos, client=client, **OPTIONS)


def test_an_attempt_after_another_one_computes_only_what_is_left(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker_module._compute
    rows = []

    def twice(task: Any, worker: Any) -> Any:
        rows.append(real(task, worker).rows)
        rows.append(real(task, worker).rows)
        return real(task, worker)

    monkeypatch.setattr(worker_module, "_compute", twice)
    found = featcache.extract("pocket", photos, client=client, task_size=8, **OPTIONS)
    assert rows == [8, 0, 4, 0]
    assert len(featcache.open_store(found.summary.folder)) == found.X.shape[0] == 12


def test_a_store_that_was_removed_is_made_again(client: Any, photos: Path) -> None:
    found = featcache.extract("pocket", photos, client=client, **OPTIONS)
    shutil.rmtree(found.summary.folder)
    found = featcache.extract("pocket", photos, client=client, **OPTIONS)
    assert (found.summary.computed, found.X.shape[0]) == (12, 12)


def test_the_command_runs_on_the_cluster_of_a_scheduler(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["extract", "pocket", str(photos), "--engine", "keras", "--no-progress", "-q"]
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0",
        protocol="tcp", host="127.0.0.1",
    ) as cluster:  # fmt: skip
        address = cluster.scheduler_address
        assert main([*arguments, "--scheduler", address, "--task-size", "6"]) == 0
        assert "  worker 0 (tcp://" in capsys.readouterr().out
        photo(photos / "cat" / "new.png", 99)
        assert main([*arguments, "--scheduler", address, "--json"]) == 0
        (worker,) = json.loads(capsys.readouterr().out)["workers"]
        assert (worker["images"], sorted(worker)) == (1, ["images", "name", "seconds"])
    assert main([*arguments, "--scheduler", "nonsense"]) == 2
    assert "There is no scheduler at nonsense" in capsys.readouterr().err
    assert main([*arguments, "--task-size", "6"]) == 2
    assert "name it with --scheduler" in capsys.readouterr().err
    assert main([*arguments, "--scheduler", "tcp://nowhere:1", "--devices", "2"]) == 2
    assert "Leave one of them out" in capsys.readouterr().err


def test_tasks_hold_neither_pixels_nor_rows(photos: Path) -> None:
    from featcache.extraction.prepare import Source, prepare
    from featcache.images.views import views_of

    request = featcache.extraction.prepare.make_request("pocket")
    jobs = prepare(
        request, Source(photos, None, None, 0.0), views_of(1, None, 0), None, None, False, False
    )
    settings = RunSettings("auto", None, None, False, None, task_size=5)
    found = make_tasks("run", jobs, "/mark", settings, 2)
    assert [len(task.locations) for task in found] == [5, 5, 2]
    assert sum(task.items for task in found) == found[0].images == 12
    assert all(len(pickle.dumps(task)) < 6000 for task in found)
    assert str(photos) not in repr(found)  # nor credentials of URLs, in logs of Dask


def test_the_size_of_tasks() -> None:
    def settings(batch: int | None, size: int | None = None) -> RunSettings:
        return RunSettings("auto", batch, None, False, None, size)

    assert choose_task_size(10**6, 8, settings(None)) == 2048
    assert choose_task_size(8000, 2, settings(None)) == 1000
    assert choose_task_size(1600, 0, settings(None)) == 400
    assert choose_task_size(10, 8, settings(None)) == 256
    assert choose_task_size(8000, 2, settings(48)) == 1008
    assert choose_task_size(8000, 2, settings(None, 7)) == 7


def test_dask_is_imported_only_for_a_cluster() -> None:
    code = (
        "import sys, featcache\n"
        "featcache.extract, featcache.FeatureExtractor\n"
        "print([m for m in ('dask', 'distributed') if m in sys.modules])\n"
        "sys.modules['distributed'] = None\n"
        "try:\n"
        "    featcache.extract('pocket', client=1)\n"
        "except featcache.errors.MissingExtra as error:\n"
        "    print(error.package)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.split("\n")[:2] == ["[]", "distributed"]
