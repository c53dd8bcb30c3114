"""What is asked of the model: images, workers, and how the program keeps its lists."""

from __future__ import annotations

from dataclasses import dataclass

from featcache.errors import InvalidRequest


@dataclass(frozen=True)
class Scenario:
    """An extraction.

    Attributes
    ----------
    images : int
        None of them is stored yet.
    workers : int
        0: this process computes, without a cluster.
    cores : int
        Cores of each worker.
    client_cores : int
        Cores of the client's machine. The scheduler runs there as well.
    machine_cores : int or None
        Cores that client, scheduler and workers share; None if each has a machine of its own.
    task_images : int or None
        Images per task. Default: as the code chooses them.
    remote : bool
        Whether images and rows are in an object store; else on disks, whose speed is not modelled.
    identified : bool
        Whether the ids of the images are known from an earlier run.
    loaded : bool
        Whether the workers have loaded the network in an earlier run.
    """

    images: int
    workers: int
    cores: int = 8
    client_cores: int = 8
    machine_cores: int | None = None
    task_images: int | None = None
    remote: bool = True
    identified: bool = False
    loaded: bool = False

    def __post_init__(self) -> None:
        lowest = {"images": 1, "workers": 0, "cores": 1, "client_cores": 1}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise InvalidRequest(
                    f"{name} is {getattr(self, name)}; it must be {low} or more.",
                    received=getattr(self, name),
                )


@dataclass(frozen=True)
class Design:
    """How the program keeps its lists of shards and of rows.

    Attributes
    ----------
    name : str
    snapshot_every : int
        Changes of the manifest per object that holds the whole list; 1: each change does.
    shards_per_change : int
        Shards that one change lists.
    lists_shards : bool
        Whether each change lists all objects of the store, and not those of the manifest alone.
    index_in_memory : bool
        Whether ids are read from all sidecars into memory when a store is opened; else from an
        index file that is mapped.
    workers_list_store : bool
        Whether a worker lists the store again at the beginning of each task.
    """

    name: str
    snapshot_every: int
    shards_per_change: int
    lists_shards: bool
    index_in_memory: bool
    workers_list_store: bool


BEFORE = Design("before", 1, 64, True, True, True)
NOW = Design("now", 64, 64, False, False, True)
DESIGNS = (BEFORE, NOW)
