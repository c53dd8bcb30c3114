"""`featcache predict --csv` writes one line per photo, in order, whatever the photos are."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

import featcache
from conftest import photo
from featcache.cli import main
from heads import make_head


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bundle")
    paths = [str(photo(folder / f"{i}.png", i)) for i in range(8)]
    features = featcache.extract(
        "pocket", paths, cache_dir=folder / "cache", labels=list("ab=b") * 2
    )
    head = make_head("logistic").fit(features.X, features.labels)
    featcache.make_bundle(features, head).save(folder / "b.featcache")
    return str(folder / "b.featcache")


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = [str(photo(tmp_path / f"{i}.png", i)) for i in range(3)]
    (tmp_path / "bad.png").write_bytes(b"no image")
    return [paths[0], str(tmp_path / "bad.png"), *paths[1:]]


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_lines_are_in_order_with_probabilities(
    bundle: str, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out.csv"
    arguments = ["predict", bundle, *photos, "--csv", str(out)]
    assert main([*arguments, "--proba", "--id", "stem"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{photos[1]}: no prediction")
    assert printed[1] == f"{out}: 4 photos, 1 of them without a prediction"
    rows = read(out)
    assert [row["id"] for row in rows] == ["0", "bad", "1", "2"]
    assert list(rows[0]) == ["id", "label", "'=", "a", "b"]
    assert set(rows[1].values()) == {"bad", ""}
    expected = featcache.load_bundle(bundle).predict(photos, top=3)
    for row, one in zip(rows, expected, strict=True):
        for name, value in one.top_classes:
            assert float(row["'=" if name == "=" else name]) == pytest.approx(value)
        assert row["label"].lstrip("'") == (one.top_classes[0][0] if one.top_classes else "")
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--strict"]) == 1
    assert list(read(out)[0]) == ["path", "label"]
    assert [row["path"] for row in read(out)] == photos


def test_what_would_not_be_a_table_is_refused(
    bundle: str, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more").mkdir()
    twin = str(shutil.copy(photos[0], tmp_path / "more" / "0.png"))
    out = str(tmp_path / "out.csv")
    assert main(["predict", bundle, photos[0], twin, "--csv", out, "--id", "stem"]) == 2
    assert "have the same stem '0'" in capsys.readouterr().err
    for option in (["--proba"], ["--overwrite"], ["--id", "name"]):
        assert main(["predict", bundle, photos[0], *option]) == 2
        assert "go with --csv FILE" in capsys.readouterr().err
    features = featcache.import_features(
        np.eye(2), ["0" * 64, "1" * 64], featcache.ImportedModel("m", "1"), labels=["label", "b"]
    )
    made = tmp_path / "label.featcache"
    head = make_head("logistic", C=1.0).fit(features.X, features.labels)
    featcache.make_bundle(features, head).save(made)
    assert main(["predict", str(made), photos[0], "--csv", out, "--proba"]) == 2
    assert "would be named 'label'" in capsys.readouterr().err
    assert not Path(out).exists()
