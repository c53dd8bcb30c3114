"""The results of an earlier run, to show differences to; its file is not trusted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featcache.errors import InvalidRequest
from featcache.toolkit import format_count, printable

from ..evaluation.metrics import METRICS
from ..evaluation.results import Results, digest_of_test_ids

# A thousand classes and ten contenders take less; parsing takes a multiple in memory.
MOST_BYTES = 200 * 2**20
MOST_CONTENDERS = 1000
LONGEST_NAME = 1000


@dataclass(frozen=True)
class EarlierRun:
    """What the ``results.json`` of an earlier run says.

    Attributes
    ----------
    dataset, split : str
    test_images, n_classes : int
    test_digest : str
        `bench.evaluation.results.digest_of_test_ids`; "" if the file has none.
    metrics : mapping of str to mapping of str to float
        Values by contender and metric.
    """

    dataset: str
    split: str
    test_images: int
    n_classes: int
    test_digest: str
    metrics: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Difference:
    """A metric of a contender now, in the earlier run, and the first minus the second."""

    contender: str
    metric: str
    now: float
    earlier: float
    difference: float


def read_earlier_run(path: str | os.PathLike[str]) -> EarlierRun:
    """Read the ``results.json`` of an earlier run.

    Parameters
    ----------
    path : path

    Returns
    -------
    EarlierRun

    Raises
    ------
    InvalidRequest
        If it is not such a file, or is larger than `MOST_BYTES`.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise ValueError("there is no such file, or it is not a regular file")
        with open(file, "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES // 2**20} MiB")
        return _earlier_run(_parsed(data))
    except RecursionError as error:
        raise _not_results(path, "it is nested too deeply") from error
    except (OSError, ValueError) as error:
        raise _not_results(path, str(error)) from error


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from error


def _not_results(path: str | os.PathLike[str], reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"{os.fspath(path)} is not the result of an earlier run: {reason}. Give the "
        "results.json that an earlier comparison wrote.",
        received=os.fspath(path),
    )


def _earlier_run(record: Any) -> EarlierRun:
    if not isinstance(record, dict):
        raise ValueError(f"it holds {_kind(record)} where an object is expected")
    contenders = _typed(record, "contenders", list)
    if not 0 < len(contenders) <= MOST_CONTENDERS:
        raise ValueError(
            f"it has {format_count(len(contenders), 'contender')}, expected 1 to {MOST_CONTENDERS}"
        )
    metrics: dict[str, dict[str, float]] = {}
    for entry in contenders:
        if not isinstance(entry, dict):
            raise ValueError(f"a contender is {_kind(entry)} where an object is expected")
        name = _text(entry, "contender")
        if name in metrics:
            raise ValueError(f"it has two contenders named {name!r}")
        metrics[name] = {m: _number(entry[m], m) for m in METRICS if m in entry}
    return EarlierRun(
        dataset=_text(record, "dataset"),
        split=_text(record, "split"),
        test_images=_typed(record, "test_images", int),
        n_classes=len(_typed(record, "classes", list)),
        test_digest=_text(record, "test_ids_sha256") if "test_ids_sha256" in record else "",
        metrics=metrics,
    )


def _typed(record: Mapping[str, Any], name: str, kind: type) -> Any:
    value = record.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"its {name!r} is {_kind(value)}, expected {_KINDS[kind]}")
    return value


def _text(record: Mapping[str, Any], name: str) -> str:
    value = str(_typed(record, name, str))
    if len(value) > LONGEST_NAME:
        raise ValueError(f"its {name!r} has {len(value)} characters, expected {LONGEST_NAME}")
    return value


def _number(value: Any, name: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # A whole number of hundreds of digits is no float.
    if not is_number or abs(value) > 1e9 or not math.isfinite(value):
        raise ValueError(f"its metric {name!r} is {_kind(value)}, expected a finite number")
    return float(value)


_KINDS: Mapping[type, str] = {
    list: "a list", str: "text", int: "a whole number", dict: "an object",
    float: "a number", bool: "true or false", type(None): "missing",
}  # fmt: skip


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def differences(results: Results, earlier: EarlierRun) -> list[Difference]:
    """Return the difference in each metric of each contender that both runs have."""
    found = []
    for result in results:
        for metric, before in earlier.metrics.get(result.name, {}).items():
            now = result.metrics[metric]
            found.append(Difference(result.name, metric, now, before, now - before))
    return found


def mismatches(results: Results, earlier: EarlierRun) -> list[str]:
    """Return a sentence for each reason why the differences are not of the contenders alone."""
    split, found = results.split, []
    if earlier.dataset != split.dataset.name:
        found.append(f"The earlier run used the data set {earlier.dataset!r}.")
    if earlier.n_classes != len(split.classes):
        found.append(f"The earlier run had {format_count(earlier.n_classes, 'class', 'classes')}.")
    if earlier.test_digest:
        if earlier.test_digest != digest_of_test_ids(split):
            found.append(f"The earlier run was scored on other test images ({earlier.split}).")
    elif (earlier.split, earlier.test_images) != (split.name, len(split.test)):
        found.append(
            f"The earlier run used the split {earlier.split!r} with "
            f"{format_count(earlier.test_images, 'test image')}."
        )
    lacking = sorted({m for values in earlier.metrics.values() for m in METRICS if m not in values})
    if lacking:
        found.append(f"The earlier run lacks {', '.join(lacking)} for at least one contender.")
    if not any(result.name in earlier.metrics for result in results):
        found.append("The earlier run has no contender of the same name.")
    return found


def comparison_record(results: Results, earlier: EarlierRun) -> dict[str, Any]:
    """Return the entry ``earlier`` of `results.json`."""
    return {
        "dataset": earlier.dataset,
        "split": earlier.split,
        "mismatches": mismatches(results, earlier),
        "differences": [asdict(d) for d in differences(results, earlier)],
        "missing": [name for name in earlier.metrics if name not in {r.name for r in results}],
    }


def describe_differences(results: Results, earlier: EarlierRun) -> str:
    """Return the differences in top-1, and what limits them, as text."""
    changes = {d.contender: d for d in differences(results, earlier) if d.metric == "top1"}
    lines = [f"Top-1 against the earlier run on {earlier.dataset}, split {earlier.split}:"]
    for result in results:
        change = changes.get(result.name)
        text = "new" if change is None else f"{change.difference:+.4f}, was {change.earlier:.4f}"
        lines.append(f"  {result.name}: {text}")
    lines += [f"Caution: {sentence}" for sentence in mismatches(results, earlier)]
    return printable("\n".join(lines), keep="\n")
