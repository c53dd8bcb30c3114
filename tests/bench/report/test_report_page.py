"""What the page of a report says, read from the page; predictions are made up."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import read_earlier_run, summarise, write_report
from bench.analysis.statistics import wilson
from bench.report import errors as errors_module
from bench.report.class_tables import class_rows, frequent_confusions, matrix_data
from bench.report.contender_tables import pair_matrix, seed_rows
from bench.report.errors import error_gallery
from bench.report.page import script_json
from bench.report.reliability_bins import reliability_bins
from made_up import made_up_results, made_up_summary

CLASSES = ["n02085620-Chihuahua", "golden_retriever", "pug", "</script><b>x", "zebra"]


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made_up_summary(tmp_path_factory.mktemp("photos"), CLASSES, seeds=2)


@pytest.fixture(scope="module")
def page(summary: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(summary, tmp_path_factory.mktemp("page")).read_text("utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', page)
    assert found
    return json.loads(found[1])


def rows_of(page: str, table: str) -> list[str]:
    body = page[page.index(f'id="{table}"') :]
    body = body[body.index("<tbody>") : body.index("</tbody>")]
    return [html.unescape(re.sub(r"<[^>]*>", " ", row)) for row in body.split("<tr")[1:]]


def test_every_error_is_in_the_gallery_with_its_file(summary: Any, page: str) -> None:
    result, data = summary.best_with_mistakes, data_of(page)
    wrong = result.prediction != result.truth
    found = data["gallery"]["errors"]
    assert len(found) == wrong.sum()
    assert all(image and file.endswith(".png") for file, *_, image in found)
    confidence = [probabilities[0] for *_, probabilities, _ in found]
    assert confidence == sorted(confidence, reverse=True)
    cells = sum(n for t, p, n in data["cells"] if t != p)
    assert cells == wrong.sum()


def test_names_are_readable_and_the_original_ones_are_kept(page: str) -> None:
    data = data_of(page)
    assert sorted(data["labels"]) == sorted(CLASSES)
    assert {"Chihuahua", "Golden retriever", "Pug", "Zebra"} < set(data["names"])
    assert 'title="n02085620-Chihuahua"' in page


def test_no_name_ends_the_script_or_becomes_markup(page: str) -> None:
    assert "</script><b>" not in page
    assert page.count("</script>") == 2
    assert json.loads(str(script_json("</script>&"))) == "</script>&"
    with pytest.raises(ValueError, match="Out of range"):
        script_json(float("nan"))


def test_the_policy_permits_the_script_of_the_page_and_no_other(page: str) -> None:
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = html.unescape(policy[1])
    assert f"script-src 'sha256-{digest}'" in rules
    assert "default-src 'none'" in rules
    assert not re.search(r"<[^>]* on[a-z]+=", page)


def test_the_class_table_begins_with_the_worst(summary: Any, page: str) -> None:
    rows = class_rows(summary.first.split, summary.best_with_mistakes)
    recall = [row["recall"] for row in rows]
    assert recall == sorted(recall)
    assert sum(row["errors"] for row in rows) == len(data_of(page)["gallery"]["errors"])
    names = data_of(page)["names"]
    shown = rows_of(page, "class-table")
    assert [names[row["code"]] in text for row, text in zip(rows, shown, strict=True)] == [True] * 5
    row = rows[0]
    assert (row["low"], row["high"]) == wilson(row["test"] - row["errors"], row["test"])


def test_a_class_without_test_images_comes_last(tmp_path: Path) -> None:
    results = made_up_results(tmp_path, ["a", "b", "c"], boosts=(0.0,))
    one = results.results[0]
    kept = one.truth != 1
    fewer = type(one)(
        one.name, one.truth[kept], one.proba[kept], one.positions[kept], one.cost, one.facts
    )
    rows = class_rows(results.split, fewer)
    assert rows[-1]["code"] == 1
    assert rows[-1]["test"] == 0


def test_frequent_confusions_are_counted_from_the_predictions(summary: Any) -> None:
    result = summary.first["three"]
    first = frequent_confusions(result)[0]
    pairs = zip(result.truth.tolist(), result.prediction.tolist(), strict=True)
    assert list(pairs).count((first["truth"], first["predicted"])) == first["count"]
    table = result.confusion()
    np.fill_diagonal(table, 0)
    assert first["count"] == table.max()


def test_the_matrix_data_are_the_confusion_matrix(summary: Any) -> None:
    result = summary.first["three"]
    data = matrix_data(summary.first.split, result)
    table = np.zeros((5, 5), int)
    for truth, predicted, count in data["cells"]:
        table[truth, predicted] = count
    assert np.array_equal(table, result.confusion())
    assert sorted(data["order"]) == list(range(5))


def test_photos_stop_where_the_page_is_full_and_the_page_says_so(
    summary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, result = summary.first.split, summary.first["three"]
    everything = error_gallery(split, result)
    assert everything.without_photo == 0
    room = sum(len(e.image or "") for e in everything.errors[:4]) + 10
    some = error_gallery(split, result, room)
    assert [e.image is not None for e in some.errors[:6]] == [True] * 4 + [False] * 2
    assert some.without_photo == some.total - 4
    monkeypatch.setattr(errors_module, "MOST_ERRORS", 6)
    fewer = error_gallery(split, result, room)
    monkeypatch.setattr(errors_module, "error_gallery", lambda *_: fewer)
    page = write_report(summary, tmp_path).read_text("utf-8")
    text = " ".join(re.sub(r"<[^>]*>", "", page).split())
    assert f"the photos of {fewer.total - 4} errors with the lowest confidence are left out" in text
    assert f"{fewer.total - 6} of these are not listed here; predictions.csv has them all" in text


def test_a_photo_that_is_gone_is_said_to_be_so(tmp_path: Path) -> None:
    results = made_up_results(tmp_path, ["a", "b"], boosts=(0.0,))
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"not a photo")
    found = error_gallery(results.split, results.results[0])
    assert {error.image for error in found.errors} == {""}
    assert found.without_photo == 0


def test_the_matrix_of_pairs_is_antisymmetric_and_marks_what_is_significant(summary: Any) -> None:
    names = ["one", "two", "three"]
    for metric in ("top1", "log_loss"):
        table = pair_matrix(names, summary.comparisons, metric)
        for i in range(3):
            assert table[i][i] is None
            for j in range(i):
                above, below = table[j][i], table[i][j]
                assert above is not None
                assert below is not None
                assert above.difference == -below.difference
                assert (above.low, above.high) == (-below.high, -below.low)
        worst = table[2][0]
        assert worst is not None
        assert worst.standing == "worse"
        assert worst.p < 0.05


def test_the_main_table_says_who_is_tied_with_the_best(summary: Any, page: str) -> None:
    standing = {row["contender"]: row["standing"] for row in summary.table()}
    assert standing["three"] == ""
    assert sorted((standing["one"], standing["two"])) == ["best", "tied"]
    assert [("tied with the best" in row) for row in rows_of(page, "contender-table")].count(
        True
    ) == 1


def test_seeds_have_one_table_with_mean_and_deviation(summary: Any, page: str) -> None:
    values = [run["two"].metrics["top1"] for run in summary.runs]
    row = rows_of(page, "seed-table")[1]
    assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in row
    assert all(f"{value:.3f}" in row for value in values)
    assert seed_rows(summary)[1]["top1"] == values


def test_one_seed_and_one_contender_have_neither_table(tmp_path: Path) -> None:
    results = made_up_results(tmp_path / "photos", ["a", "b"], boosts=(1.0,))
    page = write_report(summarise([results], computed_attributes=False), tmp_path).read_text()
    assert 'id="seed-table"' not in page
    assert 'class="pairs"' not in page
    assert "Tied" not in page


def test_a_report_without_errors_has_no_gallery(tmp_path: Path) -> None:
    results = made_up_results(tmp_path / "photos", ["a", "b"], boosts=(50.0,))
    page = write_report(summarise([results], computed_attributes=False), tmp_path).read_text()
    assert "None: all test images were predicted correctly." in page
    assert 'id="matrix"' not in page
    assert data_of(page)["gallery"]["errors"] == []


def test_bins_count_every_test_image_and_hold_their_accuracy(summary: Any) -> None:
    bins = reliability_bins(summary.best)
    assert sum(bin_["count"] for bin_ in bins) == len(summary.best.truth)
    hits = sum(bin_["count"] * bin_["accuracy"] for bin_ in bins)
    assert hits == pytest.approx((summary.best.prediction == summary.best.truth).sum())
    for bin_ in bins:
        low, high = wilson(round(bin_["count"] * bin_["accuracy"]), round(bin_["count"]))
        assert (bin_["accuracy_low"], bin_["accuracy_high"]) == (low, high)


def test_the_table_shows_what_changed_since_an_earlier_run(summary: Any, tmp_path: Path) -> None:
    summary.first.save(tmp_path)
    record = json.loads((tmp_path / "results.json").read_text())
    record["contenders"][0]["top1"] -= 0.125
    record["contenders"][2]["contender"] = "<i>gone</i>"
    record["dataset"] = "<i>other</i>"
    (tmp_path / "results.json").write_text(json.dumps(record))
    earlier = read_earlier_run(tmp_path / "results.json")
    page = write_report(summary, tmp_path, earlier=earlier).read_text("utf-8")
    rows = rows_of(page, "contender-table")
    assert "+0.125" in rows[0]
    assert "+0.000" in rows[1]
    assert "new" in rows[2]
    assert "&lt;i&gt;other" in page
    assert "&lt;i&gt;gone" in page
    assert "<i>" not in page
