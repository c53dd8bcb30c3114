"""The figures that the model starts from, each with its unit and its source."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featcache.errors import InvalidRequest

_MEASURED = "`python -m bench.scale calibrate` on 2 cores of an Intel Xeon that other work shared"
_QUIET = "`python -m bench.scale calibrate` on the same machine, when little else ran there"
_RESULTS = "bench/perf/RESULTS.md, section {}"
_SHARDS = "bench/perf/RESULTS.md, section A store of many shards"
_FORMAT = "the format, featcache/store/index_file.py"
_CODE = "the code, {}"
_GUIDE = "Amazon S3 User Guide, Best practices design patterns: optimizing Amazon S3 performance"
_PRICES = "list price on demand in us-east-1; an assumption"


def _figure(default: float, unit: str, source: str) -> Any:
    return field(default=default, metadata={"unit": unit, "source": source})


@dataclass(frozen=True)
class Constants:
    """Measured figures, figures of the code, and assumptions; see `sources`."""

    # A worker
    image_core_seconds: float = _figure(0.0082, "core s per image", f"MobileNetV2: {_QUIET}")
    busy_fraction: float = _figure(0.95, "of the cores, by one extraction", _QUIET)
    width: float = _figure(1280, "numbers per row", "MobileNetV2")
    worker_start_seconds: float = _figure(
        10.0, "s", f"a network that is not converted yet: {_RESULTS.format('Memory of extraction')}"
    )
    task_seconds: float = _figure(0.024, "s per task, at the worker", _MEASURED)
    extraction_seconds: float = _figure(0.18, "s per extraction", _MEASURED)
    cluster_seconds: float = _figure(0.32, "s per extraction on a cluster", _MEASURED)
    # The client and the scheduler
    task_core_seconds: float = _figure(0.0060, "core s per task", _MEASURED)
    task_image_bytes: float = _figure(111.0, "bytes per image of a task", _MEASURED)
    identify_core_seconds: float = _figure(67e-6, "core s per image", _MEASURED)
    client_core_seconds: float = _figure(1.7e-6, "core s per image", _MEASURED)
    client_image_bytes: float = _figure(640.0, "bytes of memory per image", _MEASURED)
    # Stores
    sidecar_core_seconds: float = _figure(66e-6, "core s per sidecar", _MEASURED)
    sidecar_row_core_seconds: float = _figure(0.073e-6, "core s per row of a sidecar", _MEASURED)
    sidecar_row_bytes: float = _figure(52.0, "bytes per row", _MEASURED)
    shard_extra_bytes: float = _figure(1.09e6, "bytes per shard beside its rows", _MEASURED)
    index_core_seconds: float = _figure(0.12e-6, "core s per row", _MEASURED)
    index_memory_bytes: float = _figure(104.0, "bytes of memory per row", _MEASURED)
    index_page_bytes: float = _figure(36 / 93, "bytes of memory per row, of an index file", _FORMAT)
    index_row_bytes: float = _figure(4096 / 93, "bytes per row, of an index file", _FORMAT)
    index_shard_bytes: float = _figure(1480.0, "bytes of memory per shard", _SHARDS)
    index_shard_core_seconds: float = _figure(10.8e-6, "core s per shard", _SHARDS)
    manifest_shard_bytes: float = _figure(100.0, "bytes per shard", _MEASURED)
    manifest_core_seconds: float = _figure(3.6e-6, "core s per shard", _MEASURED)
    # An object store
    get_seconds: float = _figure(
        0.05, "s per read", "the server of `python -m bench.perf remote`; an assumption"
    )
    put_seconds: float = _figure(0.05, "s per creation", "an assumption")
    list_seconds: float = _figure(0.1, "s per 1,000 names", "an assumption")
    image_requests: float = _figure(
        2.0, "requests per image that is read", _CODE.format("featcache/data/remote_files.py")
    )
    gets_per_second: float = _figure(5500.0, "requests per s and prefix", _GUIDE)
    puts_per_second: float = _figure(3500.0, "requests per s and prefix", _GUIDE)
    image_prefixes: float = _figure(200.0, "prefixes of the images", "an assumption")
    image_bytes: float = _figure(110_000.0, "bytes per image", "an assumption")
    bandwidth: float = _figure(1.25e9, "bytes per s and machine", "10 Gbit/s; an assumption")
    requests_in_flight: float = _figure(
        64.0, "requests per process", _CODE.format("MAX_REQUESTS in featcache/data/read_ahead.py")
    )
    # Prices
    core_hour: float = _figure(0.0446, "USD per core and hour", f"AWS c7i.2xlarge, {_PRICES}")
    thousand_puts: float = _figure(0.005, "USD per 1,000 PUT or LIST", f"S3 Standard, {_PRICES}")
    thousand_gets: float = _figure(0.0004, "USD per 1,000 GET", f"S3 Standard, {_PRICES}")
    gigabyte_month: float = _figure(0.023, "USD per GB and month", f"S3 Standard, {_PRICES}")
    # Memory
    client_memory: float = _figure(64e9, "bytes", "an assumption")
    worker_memory: float = _figure(16e9, "bytes", "AWS c7i.2xlarge; an assumption")

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value < float("inf"):
                raise InvalidRequest(
                    f"The constant {name} is {value!r}; it must be a number above 0.",
                    received=value,
                )

    def replaced(self, values: Mapping[str, Any]) -> Constants:
        """Return constants with some values replaced.

        Raises
        ------
        InvalidRequest
            If a name is unknown, or a value is not a number above 0.
        """
        unknown = sorted(set(values) - set(names()))
        if unknown:
            raise InvalidRequest(
                f"There is no constant {unknown[0]!r}; `python -m bench.scale constants` lists "
                "them all.",
                received=unknown[0],
            )
        return dataclasses.replace(self, **values)


def names() -> list[str]:
    """Return the names of the constants."""
    return [one.name for one in dataclasses.fields(Constants)]


def describe(constants: Constants) -> list[tuple[str, float, str, str]]:
    """Return name, value, unit and source of each constant; the source of a changed one is you."""
    return [
        (
            one.name,
            getattr(constants, one.name),
            str(one.metadata["unit"]),
            str(one.metadata["source"])
            if getattr(constants, one.name) == one.default
            else "given by you",
        )
        for one in dataclasses.fields(Constants)
    ]


def load_constants(file: Path | None, changes: Mapping[str, float]) -> Constants:
    """Return the constants, with those of a JSON file and then some others replaced.

    Parameters
    ----------
    file : Path or None
        As `calibrate` writes it: an object of names and numbers; "machine" is not read.
    changes : mapping of str to float

    Raises
    ------
    InvalidRequest
        If the file is not of that kind, a name is unknown, or a value is not above 0.
    """
    found: Any = {}
    if file is not None:
        try:
            found = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise InvalidRequest(
                f"{file} cannot be read as JSON ({error}). `python -m bench.scale calibrate` "
                "writes such a file.",
                received=file,
            ) from error
    if not isinstance(found, dict):
        raise InvalidRequest(
            f"{file} holds {type(found).__name__}; expected an object of names and numbers.",
            received=file,
        )
    return Constants().replaced({k: v for k, v in found.items() if k != "machine"} | dict(changes))
