"""The tables of the documents, from the results of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.tools.figures import main


def row(contender: str, top1: float, **more: Any) -> dict[str, Any]:
    return {
        "contender": contender,
        "top1": top1,
        "top1_low": top1 - 0.01,
        "top1_high": top1 + 0.01,
        "macro_f1": 0.5,
        "fit_seconds": 2.0,
        "extract_seconds": 1234.5,
        "disk_bytes": 5_000_000,
        **more,
    }


def test_a_contender_and_the_one_with_mirror_images_share_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "a.json", tmp_path / "b.json"
    joined = "mobilenet_v2@weights=w.h5+xception@image_size=224 + logistic"
    rows = [
        row("vgg16@weights=w.h5 + logistic", 0.7),
        row("vgg16@weights=w.h5 + logistic + flip", 0.75),
        row("vgg16@weights=w.h5 + svm", 0.65, top1_mean=0.66, top1_std=0.002),
    ]
    one.write_text(json.dumps({"summary": {"table": rows}}))
    other.write_text(json.dumps({"summary": {"table": [row(joined, 0.9)]}}))
    main([str(one), str(other)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5] == [
        "| vgg16 | logistic | 0.700 [0.690, 0.710] | 0.750 | 0.500 | 2.0 |",
        "| vgg16 | svm | 0.650 [0.640, 0.660]; 0.660 +- 0.002 over seeds |  | 0.500 | 2.0 |",
        "| mobilenet_v2 + xception | logistic | 0.900 [0.890, 0.910] |  | 0.500 | 2.0 |",
    ]
    assert lines[-2:] == ["| vgg16 | 1,234 | 5 |", "| mobilenet_v2 + xception | 1,234 | 5 |"]
