"""What is asked of the model: images, workers, and how the program keeps its lists."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from featcache.errors import InvalidRequest

Ids = Literal["new", "remembered", "given"]
IDS: tuple[Ids, ...] = get_args(Ids)


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
    ids : {"new", "remembered", "given"}
        Whether the client reads all images to find their ids, has them from an earlier run and
        only asks whether the images have changed, or gets them as ``Dataset(paths, ids=...)``.
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
    ids: Ids = "new"
    loaded: bool = False

    def __post_init__(self) -> None:
        lowest = {"images": 1, "workers": 0, "cores": 1, "client_cores": 1}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise InvalidRequest(
                    f"{name} is {getattr(self, name)}; it must be {low} or more.",
                    received=getattr(self, name),
                )
        if self.ids not in IDS:
            raise InvalidRequest(
                f"ids is {self.ids!r}; choose from {', '.join(IDS)}.", received=self.ids
            )


@dataclass(frozen=True)
class Design:
    """How the program keeps the lists of shards and rows of a cache in an object store.

    Attributes
    ----------
    name : str
    pushed : bool
        Whether the workers write to a shared disk, from which one process pushes the shards
        afterwards; else they create the objects, and the client lists them at the same time.
    snapshot_every : int
        Changes of the manifest per object that holds the whole list; 1: each change does.
    shards_per_change : int
        Shards that one change lists, at least.
    change_seconds : float
        Seconds between changes, at least; 0 for a push, which waits for shards alone.
    lists_shards : bool
        Whether each change lists all objects of the store, and not those of the manifest alone.
    index_file : bool
        Whether a store in a folder that is opened again reads an index file, not all sidecars.
    workers_list : bool
        Whether a worker marks the store as in use and lists it again for each task.
    max_listed : float
        Shards of a store in an object store up to which a worker reads the sidecars of all.
    sidecars_at_once : int
        Requests for sidecars that are under way at a time.
    """

    name: str
    pushed: bool
    snapshot_every: int
    shards_per_change: int
    change_seconds: float
    lists_shards: bool
    index_file: bool
    workers_list: bool = True
    max_listed: float = math.inf
    sidecars_at_once: int = 1


BEFORE = Design("before", True, 1, 64, 0.0, True, False)
NOW = Design("now", False, 64, 1, 5.0, False, True, max_listed=1024, sidecars_at_once=16)
# Not what the code does: the change of how it lists that would help most.
NEXT = replace(NOW, name="next", workers_list=False)
DESIGNS = (BEFORE, NOW, NEXT)
