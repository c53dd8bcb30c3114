"""Stores with an index file answer as those without, whatever is done in whatever order."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from test_store_model import StoreMachine

from featcache import repair, verify
from featcache.store.index_build import write_index
from featcache.store.index_file import NAME
from featcache.store.lease import lease
from featcache.store.maintenance import compact
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

places = st.integers(0, 2**20)


class IndexMachine(StoreMachine):
    """The changes of a store, with an index file that is written and damaged in between."""

    def __init__(self) -> None:
        super().__init__()
        self.other = Store.create(self.home, SPEC, WIDTH)  # opened once, then only refreshed

    def teardown(self) -> None:
        self.other.close()
        super().teardown()

    @rule()
    def write_an_index(self) -> None:
        self.store.refresh()
        if len(self.store.shards):
            with lease(self.home) as held:
                write_index(self.store, held)

    @rule(number=st.integers(0, 40))
    def append_beside_it(self, number: int) -> None:
        self.write_an_index()
        self.store.append(rows_of(number, 40), ids_of(number, 40))
        self.model |= {n: rows_of(n)[0] for n in (number, 40)}

    @rule()
    def merge_beside_it(self) -> None:
        self.write_an_index()
        compact(Store(self.home), many=2)

    @rule(flip=st.booleans(), at=places, bit=st.integers(0, 7), mends=st.booleans())
    def damage_it(self, flip: bool, at: int, bit: int, mends: bool) -> None:
        self.write_an_index()
        if not len(self.store.shards):
            return
        path = self.home / NAME
        content = bytearray(path.read_bytes())
        if flip:
            # The padding of the head is not covered by a checksum, and not read.
            place = at % 100 if at % 2 else 4096 + at % (len(content) - 4096)
            content[place] ^= 1 << bit
        else:
            del content[at % len(content) :]
        path.unlink()
        path.write_bytes(bytes(content))
        assert [damage.name for damage in verify(self.home)] == [NAME]
        if mends:
            repair(self.home)
        for store in (self.other, Store(self.home)):
            self.answers_rightly(store)
        path.unlink(missing_ok=True)

    def answers_rightly(self, store: Store) -> None:
        store.refresh()
        everything = list(range(61))
        assert {n for n in everything if store.contains(ids_of(n))[0]} == set(self.model)
        assert len(store) == len(self.model) == len(store.ids())
        if self.model:
            some = sorted(self.model)
            rows = np.stack([self.model[n] for n in some])
            assert np.array_equal(store.read(ids_of(*some)), rows)

    @invariant()
    def another_process_sees_the_same(self) -> None:
        self.answers_rightly(self.other)


IndexMachine.TestCase.settings = settings(max_examples=4, stateful_step_count=12, deadline=None)
TestIndexMachine = IndexMachine.TestCase
