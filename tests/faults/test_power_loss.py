"""The power fails: whatever an unsynced disk may hold, no acknowledged row is lost."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from scale import times
from simulated_disk import Event, Recorder, after_power_loss

from featcache import verify
from featcache.gc.collect import collect
from featcache.store.maintenance import compact
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """Appends, manifests, a merge and a collection, recorded."""
    cache = tmp_path_factory.mktemp("recorded")
    folder = cache / "stores" / SPEC.folder
    recorder = Recorder(folder)
    kept: list[int] = []
    with recorder.recording():
        store = Store.create(folder, SPEC, WIDTH)
        for number in range(0, 60, 3):
            store.append(rows_of(number, number + 1), ids_of(number, number + 1))
            recorder.acknowledge(number, number + 1)
            kept += [number, number + 1]
            store.append(rows_of(number + 2), ids_of(number + 2))  # to be collected
            if number % 9 == 0:
                store.write_manifest()
                store.add_to_quarantine({ids_of(-number - 1)[0]: "is damaged"})
            if number % 15 == 0:
                compact(store, many=3)
            if number % 21 == 0:
                collect(cache, keep_ids=ids_of(*kept))
                store.refresh()
    return recorder.events


def test_the_record_ends_as_the_folder_does(events: list[Event], tmp_path: Path) -> None:
    # With everything synced nothing is left to chance, and the store is the whole one.
    files, acknowledged = after_power_loss([*events, Event("sync folder")], random.Random(0))
    numbers = lay_out(files, tmp_path) and sorted(acknowledged)
    assert len(numbers) == 40
    assert np.array_equal(Store(tmp_path).read(ids_of(*numbers)), rows_of(*numbers))


def lay_out(files: dict[str, bytes], folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return True


@pytest.mark.timeout(1500)
def test_no_acknowledged_row_is_lost_to_a_power_loss(events: list[Event], tmp_path: Path) -> None:
    generator = random.Random(1)
    first_ack = next(i for i, event in enumerate(events) if event.kind == "ack")
    torn = 0
    for trial in range(times(100, 2000)):
        stop = generator.randrange(first_ack + 1, len(events) + 1)
        files, acknowledged = after_power_loss(events[:stop], generator)
        folder = tmp_path / "store"
        shutil.rmtree(folder, ignore_errors=True)
        lay_out(files, folder)
        numbers = sorted(acknowledged)
        store = Store(folder)
        assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers)), trial
        torn += bool(store.damaged) or any(name.startswith(".tmp-") for name in files)
        store.close()
        # What is torn is found, and does not outlive a repair.
        if verify(folder):
            from featcache import repair

            repair(folder)
            assert verify(folder) == []
            assert np.array_equal(Store(folder).read(ids_of(*numbers)), rows_of(*numbers)), trial
    assert torn > 10  # else nothing was at stake


def test_without_the_syncs_rows_would_be_lost(events: list[Event], tmp_path: Path) -> None:
    # The simulation can see a loss: the same events with every sync left out.
    bare = [event for event in events if not event.kind.startswith("sync")]
    generator = random.Random(2)
    lost = 0
    for trial in range(40):
        files, acknowledged = after_power_loss(bare, generator)
        folder = tmp_path / str(trial)
        lay_out(files, folder)
        try:
            lost += not Store(folder).contains(ids_of(*acknowledged)).all()
        except Exception:
            lost += 1
    assert lost > 30
