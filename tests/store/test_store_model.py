"""A store against a dictionary: whatever is done in whatever order, they hold the same rows."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from featcache import repair, verify
from featcache.gc.collect import collect
from featcache.store.maintenance import compact
from featcache.store.pack import pack, unpack
from featcache.store.store import Store
from stores import HALF, SPEC, WIDTH, as_stored, ids_of, rows_of

numbers = st.lists(st.integers(0, 40), min_size=1, max_size=6, unique=True)


class StoreMachine(RuleBasedStateMachine):
    """Every public change of a store, and the same on a dictionary."""

    spec = SPEC

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="featcache-model-"))
        self.home = self.root / "stores" / self.spec.folder
        self.store = Store.create(self.home, self.spec, WIDTH)
        self.model: dict[int, np.ndarray] = {}  # type: ignore[type-arg]
        self.bad: dict[str, str] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root, ignore_errors=True)

    @rule(some=numbers)
    def append(self, some: list[int]) -> None:
        self.store.append(rows_of(*some), ids_of(*some))
        self.model |= {number: as_stored(rows_of(number)[0], self.spec) for number in some}

    @rule()
    def write_manifest(self) -> None:
        self.store.write_manifest()

    @rule(many=st.integers(2, 5))
    def merge(self, many: int) -> None:
        compact(self.store, many=many)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store(self.home)

    @rule(number=st.integers(41, 60))
    def quarantine(self, number: int) -> None:
        self.store.add_to_quarantine({ids_of(number)[0]: "is damaged"})
        self.bad[ids_of(number)[0]] = "is damaged"

    @rule(kept=numbers)
    def collect(self, kept: list[int]) -> None:
        self.store.write_manifest()
        collect(self.root, keep_ids=ids_of(*kept))
        self.model = {n: row for n, row in self.model.items() if n in kept}
        self.store = Store(self.home)

    @precondition(lambda self: self.model)
    @rule()
    def pack_and_unpack_elsewhere(self) -> None:
        self.store.refresh()
        pack(self.store, self.root / "p.h5")
        other = unpack(self.root / "p.h5", self.root / "other")
        some = sorted(self.model)
        assert np.array_equal(other.read(ids_of(*some)), self.store.read(ids_of(*some)))
        other.close()
        shutil.rmtree(self.root / "other")

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 2**10), at=st.integers(0, 2**20), bit=st.integers(0, 7))
    def lose_a_shard_to_a_flipped_bit(self, number: int, at: int, bit: int) -> None:
        self.store.refresh()
        self.store.write_manifest()
        # By content: the names begin with random digits, and a failure must be reproducible.
        names = sorted(self.store.shard_names, key=lambda name: name[-67:])
        name = names[number % len(names)]
        path = self.home / name
        content = bytearray(path.read_bytes())
        content[at % len(content)] ^= 1 << bit
        self.store.close()
        path.write_bytes(bytes(content))
        assert [damage.name for damage in verify(self.home)] == [name]
        repair(self.home)
        self.store = Store(self.home)
        left = [n for n in self.model if self.store.contains(ids_of(n))[0]]
        assert len(self.model) - len(left) <= int(name.split("-")[2])
        self.model = {n: self.model[n] for n in left}

    @invariant()
    def they_hold_the_same(self) -> None:
        self.store.refresh()
        everything = list(range(61))
        there = self.store.contains(ids_of(*everything))
        assert {n for n in everything if there[n]} == set(self.model)
        assert len(self.store) == len(self.model) == len(self.store.ids())
        if self.model:
            some = sorted(self.model)
            rows = self.store.read(ids_of(*some))
            assert np.array_equal(rows, np.stack([self.model[n] for n in some]))
        assert self.store.quarantined == self.bad

    @invariant()
    def every_byte_is_sound(self) -> None:
        assert verify(self.home) == []


class HalfStoreMachine(StoreMachine):
    """The same for rows of float16."""

    spec = HALF


StoreMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=16, deadline=None)
HalfStoreMachine.TestCase.settings = settings(max_examples=6, stateful_step_count=16, deadline=None)
TestStoreMachine = StoreMachine.TestCase
TestHalfStoreMachine = HalfStoreMachine.TestCase
