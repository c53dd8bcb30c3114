"""Reports of the benchmarks of speed and memory; the figures themselves are not tested."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.perf import cluster, devices, extraction, shards
from bench.perf.__main__ import SECTIONS, keep_other_backbones, update_report
from bench.perf.timing import describe_machine, run_interleaved
from featcache.store.store import Store

KERAS, OURS = [4.0, 2.0, 3.0], [1.0, 2.0, 1.5]


def extraction_record(**seconds: list[float]) -> dict[str, Any]:
    seconds_by_kind = {"Keras": KERAS, "featcache float32": OURS, **seconds}
    records = [{"backbone": "resnet50", "photos": 30, "seconds": seconds_by_kind, "refused": {}}]
    return {"machine": {"processor": "a processor"}, "scale": 1, "records": records}


def test_a_ratio_is_that_of_the_medians() -> None:
    (row,) = [
        line
        for line in extraction.describe(extraction_record()["records"]).splitlines()
        if "float32" in line
    ]
    assert row == "| resnet50 | 30 | featcache float32 | 20 (15 to 30) | 2.00 | >= 1.2 |"


def test_a_fraction_is_that_of_the_rounds() -> None:
    """The second round ran beside other work."""
    seconds = {"this process": [10.0, 20.0, 10.0], "2 workers": [11.0, 22.0, 30.0]}
    cpu = {name: [8.0, 8.0, 9.0] for name in seconds}
    record = {"backbone": "b", "photos": 100, "seconds": seconds, "cpu_seconds": cpu}
    found = cluster.describe([record])
    assert "| 2 workers | 4.55 (3.33 to 9.09) | 0.91 | 0.95 | 80 (80 to 90) |" in found


def test_several_devices_are_compared_with_one() -> None:
    seconds = {"default": [4.0, 4.0], "1": [8.0, 10.0], "2": [5.0, 4.0]}
    record = {"backbone": "b", "photos": 80, "devices": ["gpu:0", "gpu:1"], "engine": "keras"}
    found = devices.describe([{**record, "seconds": seconds}])
    assert "all of, gpu:0, gpu:1." in found
    assert "| 2 | 18 (16 to 20) | 2.00 |" in found


@pytest.mark.parametrize(
    ("status", "expected"), [(0, "2 x NVIDIA H100, 1 x NVIDIA L4"), (9, "no accelerator")]
)
def test_the_machine_has_the_gpus_that_the_driver_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, expected: str
) -> None:
    driver = tmp_path / "nvidia-smi"
    names = "NVIDIA H100\\nNVIDIA L4\\nNVIDIA H100\\n"
    driver.write_text(f'#!/bin/sh\nprintf "{names}"\nexit {status}\n')
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_machine()["accelerator"] == expected


def test_every_other_round_is_in_reverse() -> None:
    seen: list[str] = []

    def action(name: str) -> Any:
        return lambda: float(len(seen.append(name) or seen))

    found = run_interleaved({"a": action("a"), "b": action("b")}, 3)
    assert seen == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_a_section_measured_again_leaves_the_others_as_they_were() -> None:
    titles = {name: title for name, (title, _) in SECTIONS.items()}
    before = (
        f"# Old\n\n## {titles['heads']} (at 0.1 of the size)\n\nold heads\n\n"
        f"## {titles['extraction']}\n\nold extraction\n\n## {titles['hits']}\n\nold hits\n"
    )
    after = update_report(before, {"extraction": extraction_record()})
    assert "old extraction" not in after
    assert "Machine: a processor." in after
    found = [after.index(text) for text in ("featcache float32", "old hits", "old heads")]
    assert found == sorted(found)
    assert update_report(after, {}) == after
    assert "# Old" not in after


def test_a_backbone_measured_again_leaves_the_others_as_they_were() -> None:
    def record(**photos: int) -> dict[str, Any]:
        records = [{"backbone": name, "photos": count} for name, count in photos.items()]
        return {"machine": {"processor": "a processor"}, "scale": 1, "records": records}

    earlier = record(resnet50=1, vgg19=1)
    assert keep_other_backbones(record(vgg19=2), earlier) == record(resnet50=1, vgg19=2)
    assert keep_other_backbones(record(mobilenet=2), earlier) == record(
        resnet50=1, vgg19=1, mobilenet=2
    )
    elsewhere = {**earlier, "machine": {"processor": "another"}}
    assert keep_other_backbones(record(vgg19=2), elsewhere) == record(vgg19=2)


def test_a_worker_that_cannot_start_has_the_error(tmp_path: Path) -> None:
    worker = extraction.Worker(sys.executable, "no-such-library", "resnet50", tmp_path)
    assert worker.start_error == "KeyError: 'no-such-library'"


def test_a_made_up_store_can_be_opened_and_has_half_of_the_ids(tmp_path: Path) -> None:
    shards._fill(tmp_path / "store", 5, tmp_path / "ids.txt")
    store = Store(tmp_path / "store")
    assert (len(store), store.damaged) == (5000, [])
    assert store.contains((tmp_path / "ids.txt").read_text().split()).sum() == 5000
    run = {"open": 1.0, "cpu": 0.5, "peak": 2**28, "first": 0.1, "later": 0.1, "rows": 5000}
    built = {"seconds": 2.0, "cpu": 1.0, "peak": 2**28}
    records = [
        {"shards": 5, "index": size, "runs": [run], "built": record}
        for size, record in ((0, None), (10**9, built))
    ]
    assert "| 5 | 5,000 | 1.00 | 2 | 1 | 256 | 1 (1 to 1) |" in shards.describe(records)
