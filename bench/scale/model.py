"""The model: phases of an extraction one after the other, and what each of them waits for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .constants import Constants
from .fluid import seconds_to_compute
from .manifest import NAMES_PER_LISTING, ManifestCost, manifest_cost
from .scenario import Design, Scenario

# As in featcache/extraction/cluster/tasks.py and worker.py, which a test compares.
MAX_TASK_IMAGES, MIN_TASK_IMAGES, TASKS_PER_THREAD, COMMIT_SECONDS = 2048, 256, 4, 30.0
MAX_MANIFEST_BYTES = 64 * 2**20
# Requests of a worker for each task in an object store, one after the other, which a test counts:
# to mark the store as in use, to list it, and to end the mark; and to create a shard. Of the
# listings, one is empty if all images can be decoded: then s3fs lists the folder above as well.
LISTINGS, READS, WRITES, SHARD_WRITES = 5 + 1, 3, 4, 2
_MAX_REPEATS = 50

IDENTIFY = "the client finds the ids"
PLAN = "the client plans and joins"
COMPUTE = "the workers compute"
READING = "the workers wait for images"
TASKS = "requests for each task"
LISTING = "the workers list the store"
SCHEDULER = "the scheduler"
STORE = "requests to the object store"
PUSH = "pushing the shards"
MANIFEST = "changes of the manifest"
OPENING = "opening the store"
START = "starting"
CAUSES = (
    COMPUTE,
    READING,
    START,
    IDENTIFY,
    PLAN,
    TASKS,
    LISTING,
    SCHEDULER,
    STORE,
    PUSH,
    MANIFEST,
    OPENING,
)


@dataclass(frozen=True)
class Prediction:
    """What an extraction takes.

    Attributes
    ----------
    scenario : Scenario
    seconds : mapping of str to float
        By cause, of `CAUSES`; they add up to the whole.
    impossible : tuple of str
        Why it cannot end at all: memory, or a limit of the format.
    shards : int
    tasks : int
    manifest : ManifestCost
    index_bytes : float
        Memory for the ids of all rows, of each process that opens the store.
    sidecar_bytes : float
    row_bytes : float
    dollars : mapping of str to float
        By kind: machines, requests, and a month of storage.
    """

    scenario: Scenario
    seconds: Mapping[str, float]
    impossible: tuple[str, ...]
    shards: int
    tasks: int
    manifest: ManifestCost
    index_bytes: float
    sidecar_bytes: float
    row_bytes: float
    dollars: Mapping[str, float]

    @property
    def total(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    @property
    def images_per_second(self) -> float:
        """Images per second, over the whole."""
        return self.scenario.images / self.total

    @property
    def limit(self) -> str:
        """What takes the longest."""
        return max(self.seconds, key=lambda cause: self.seconds[cause])


def task_images(scenario: Scenario) -> int:
    """Return the number of images per task; see `featcache.extraction.cluster.tasks`."""
    if scenario.task_images is not None:
        return scenario.task_images
    threads = TASKS_PER_THREAD * max(1, scenario.workers * scenario.cores)
    return max(MIN_TASK_IMAGES, min(MAX_TASK_IMAGES, math.ceil(scenario.images / threads)))


def predict(scenario: Scenario, constants: Constants, design: Design) -> Prediction:
    """Return what an extraction takes by the model."""
    size = min(task_images(scenario), scenario.images) if scenario.workers else scenario.images
    tasks = math.ceil(scenario.images / size)
    task_seconds = size * constants.image_core_seconds / scenario.cores
    # A process without a cluster is one long task.
    per_task = math.ceil(task_seconds / COMMIT_SECONDS)
    shards = tasks * per_task
    rows = scenario.images
    row_bytes = rows * constants.width * 4 + shards * constants.shard_extra_bytes
    computing = _compute(scenario, constants, design, size, shards)
    listed = manifest_cost(shards, design, constants, sum(computing.values()))
    seconds = {
        IDENTIFY: _identify(scenario, constants),
        PLAN: rows * constants.client_core_seconds,
        START: _start(scenario, constants),
        **computing,
        **_upload(scenario, constants, design, listed, shards, row_bytes),
        OPENING: _open(scenario, constants, design, shards),
    }
    dollars = _dollars(
        scenario, constants, design, sum(seconds.values()), listed, tasks, shards, row_bytes
    )
    return Prediction(
        scenario, seconds, _impossible(scenario, constants, design, listed, shards), shards, tasks,
        listed, rows * constants.index_memory_bytes, rows * constants.sidecar_row_bytes, row_bytes,
        dollars,
    )  # fmt: skip


def _upload(
    scenario: Scenario,
    constants: Constants,
    design: Design,
    listed: ManifestCost,
    shards: int,
    row_bytes: float,
) -> dict[str, float]:
    """Return the seconds of a push after the extraction; else those of the last change."""
    if not scenario.remote:
        return {MANIFEST: 0.0}
    if not design.pushed:  # the others are made while workers compute
        return {MANIFEST: listed.seconds / listed.changes}
    # The objects of a shard are created one after the other.
    creating = 2 * shards * constants.put_seconds + row_bytes / constants.bandwidth
    return {PUSH: creating, MANIFEST: listed.seconds}


def _identify(scenario: Scenario, constants: Constants) -> float:
    """Return the seconds in which the client finds the ids of all images."""
    if scenario.ids == "new":
        own = constants.identify_core_seconds / scenario.client_cores
        return scenario.images * max(own, _reading(scenario, constants))
    if scenario.ids == "remembered" and scenario.remote:  # it asks for the version of each
        return scenario.images * constants.get_seconds / constants.requests_in_flight
    return 0.0


def _reading(scenario: Scenario, constants: Constants) -> float:
    """Return the seconds per image in which one process reads images from an object store."""
    if not scenario.remote:
        return 0.0
    waiting = constants.image_requests * constants.get_seconds / constants.requests_in_flight
    return max(waiting, constants.image_bytes / constants.bandwidth)


def _start(scenario: Scenario, constants: Constants) -> float:
    seconds = constants.extraction_seconds
    if scenario.workers:
        seconds += constants.cluster_seconds
    return seconds + (0.0 if scenario.loaded else constants.worker_start_seconds)


def _compute(
    scenario: Scenario, constants: Constants, design: Design, size: int, shards: int
) -> dict[str, float]:
    """Return the seconds of the tasks, by what they wait for.

    All workers take tasks at the same pace. What each waits for beside computing grows with the
    rows that are stored: it lists the store again before each task.
    """
    images = scenario.images
    own = constants.image_core_seconds / (scenario.cores * constants.busy_fraction)
    waiting = max(0.0, _reading(scenario, constants) - own)  # while the cores are idle
    if not scenario.workers:
        return {COMPUTE: images * own, READING: images * waiting}
    requests = _requests(scenario, constants, design)
    computing = size * (own + waiting) + constants.task_seconds + requests
    found = _tasks(scenario, constants, design, size, shards, computing)
    found[LISTING] = found.pop("growing")
    both = found.pop("computing")
    found[READING] = both * size * waiting / computing
    found[TASKS] = both * requests / computing
    found[COMPUTE] = found.get(COMPUTE, 0.0) + both - found[READING] - found[TASKS]
    return found


def _requests(scenario: Scenario, constants: Constants, design: Design) -> float:
    """Return the seconds of a task in which its worker waits for requests, of short lists."""
    if not scenario.remote or design.pushed:
        return 0.0
    seconds = SHARD_WRITES * constants.put_seconds
    if design.workers_list:
        seconds += LISTINGS * constants.list_seconds + READS * constants.get_seconds
        seconds += WRITES * constants.put_seconds
    return seconds


def _tasks(
    scenario: Scenario,
    constants: Constants,
    design: Design,
    size: int,
    shards: int,
    computing: float,
) -> dict[str, float]:
    """Return the seconds of all tasks, as `seconds_to_compute` does.

    The longer they take, the more changes does the client make, whose names workers list.
    """
    images = scenario.images
    # The last tasks are begun by all workers at once: they end with whole rounds of tasks.
    rounds = math.ceil(images / size / scenario.workers) * size * scenario.workers
    workers = scenario.workers * images / rounds
    caps = _caps(scenario, constants, design, size, shards)
    few = _listed_rows(scenario, design, shards)
    changes, found = 0.0, dict[str, float]()
    for _ in range(_MAX_REPEATS):
        found = {}
        for listed, first, last in ((True, 0.0, few), (False, few, images)):
            fixed, per_row = _listing(
                scenario, constants, design, size, workers, shards, changes, listed
            )
            part = seconds_to_compute(
                last - first, workers, size, computing, fixed, per_row, caps, first
            )
            found = {name: found.get(name, 0.0) + value for name, value in part.items()}
        before = changes
        if design.change_seconds:
            changes = min(shards, sum(found.values()) / design.change_seconds)
        if changes <= before * 1.001:
            break
    return found


def _listed_rows(scenario: Scenario, design: Design, shards: int) -> float:
    """Return the number of stored rows up to which workers read the sidecars of all shards."""
    if not design.workers_list:
        return 0.0
    if not scenario.remote:
        return scenario.images
    return min(1.0, design.max_listed / shards) * scenario.images


def _listing(
    scenario: Scenario,
    constants: Constants,
    design: Design,
    size: int,
    workers: float,
    shards: int,
    changes: float,
    listed: bool,
) -> tuple[float, float]:
    """Return the seconds of listing the store before a task, and those per stored row.

    With `listed`, a worker reads the sidecars that others have made since its last task, and sorts
    the ids of all rows.
    """
    images = scenario.images
    fixed, per_row = 0.0, 0.0
    made = size * max(0.0, workers - 1)
    if listed:
        fixed += _sidecars(scenario, constants, design, made * shards / images, made)
        per_row += constants.index_core_seconds
    if scenario.remote and not design.pushed and design.workers_list:
        new = made * shards / images
        # Each worker reads each change once.
        fixed += changes * constants.get_seconds * workers * size / images
        fixed += new * constants.manifest_core_seconds
        fixed += new * constants.manifest_shard_bytes / constants.bandwidth
        per_row += changes / images / NAMES_PER_LISTING * constants.list_seconds
    return fixed, per_row


def _caps(
    scenario: Scenario, constants: Constants, design: Design, size: int, shards: int
) -> dict[str, float]:
    """Return the images per second that something shared allows."""
    images = scenario.images
    caps = {SCHEDULER: size / constants.task_core_seconds}
    if scenario.machine_cores is not None:
        shared = constants.image_core_seconds + constants.task_core_seconds / size
        caps[COMPUTE] = scenario.machine_cores / shared
    if scenario.remote:
        reads = constants.gets_per_second * constants.image_prefixes / constants.image_requests
        marks = images / size * WRITES * (design.workers_list and not design.pushed)
        writes = constants.puts_per_second * images / max(SHARD_WRITES * shards, marks)
        caps[STORE] = min(reads, writes)
    return caps


def _open(scenario: Scenario, constants: Constants, design: Design, shards: int) -> float:
    """Return the seconds in which the client opens the store at the end, with all new shards."""
    if scenario.workers == 0:
        return 0.0  # it has made them itself
    rows = scenario.images
    return (
        _sidecars(scenario, constants, design, shards, rows) + rows * constants.index_core_seconds
    )


def _sidecars(
    scenario: Scenario, constants: Constants, design: Design, shards: float, rows: float
) -> float:
    """Return the seconds in which one process reads the sidecars of some shards."""
    seconds = shards * constants.sidecar_core_seconds + rows * constants.sidecar_row_core_seconds
    if scenario.remote and not design.pushed:
        seconds += shards * constants.get_seconds / design.sidecars_at_once
        seconds += rows * constants.sidecar_row_bytes / constants.bandwidth
    return seconds


def _impossible(
    scenario: Scenario, constants: Constants, design: Design, listed: ManifestCost, shards: int
) -> tuple[str, ...]:
    rows = scenario.images
    index = _listed_rows(scenario, design, shards) * constants.index_memory_bytes
    client = rows * (constants.client_image_bytes + constants.index_memory_bytes)
    client += rows * constants.task_image_bytes if scenario.workers else 0.0
    found = []
    if client > constants.client_memory:
        found.append(f"the client and the scheduler need {client / 1e9:,.0f} GB")
    if scenario.workers and index > constants.worker_memory:
        found.append(f"each worker needs {index / 1e9:,.0f} GB for the ids of all rows")
    if listed.largest > MAX_MANIFEST_BYTES:
        found.append(f"the manifest would have {listed.largest / 2**20:,.0f} MiB")
    return tuple(found)


def opening(images: int, shards: int, constants: Constants, design: Design) -> tuple[float, float]:
    """Return seconds and bytes of memory of opening a store in a folder again."""
    if not design.index_file:
        seconds = shards * constants.sidecar_core_seconds
        seconds += images * (constants.sidecar_row_core_seconds + constants.index_core_seconds)
        return seconds, images * constants.index_memory_bytes
    # The first key of each page is in memory.
    memory = images * constants.index_page_bytes + shards * constants.index_shard_bytes
    return shards * constants.index_shard_core_seconds, memory


def _dollars(
    scenario: Scenario,
    constants: Constants,
    design: Design,
    seconds: float,
    listed: ManifestCost,
    tasks: int,
    shards: int,
    row_bytes: float,
) -> dict[str, float]:
    cores = scenario.workers * scenario.cores + scenario.client_cores
    puts = float(listed.requests + 2 * shards)
    per_image = constants.image_requests * (2 if scenario.ids == "new" else 1)
    gets = scenario.images * (per_image + (scenario.ids == "remembered")) + shards
    if scenario.workers and design.workers_list and not design.pushed:
        # Half of the changes are there on average.
        names = listed.changes / NAMES_PER_LISTING / 2
        # Half of the other requests remove objects, which costs nothing.
        puts += tasks * (LISTINGS + WRITES / 2 + names)
        gets += tasks * READS + scenario.workers * listed.changes
    requests = puts * constants.thousand_puts / 1e3 + gets * constants.thousand_gets / 1e3
    return {
        "machines": seconds / 3600 * cores * constants.core_hour,
        "requests": requests if scenario.remote else 0.0,
        "storage": row_bytes / 1e9 * constants.gigabyte_month,
    }
