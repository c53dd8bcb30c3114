"""Workers and clients of a cluster are killed again and again while they extract."""

from __future__ import annotations

from pathlib import Path

import pytest
from scale import times

pytest.importorskip("distributed")

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(1800)]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_killed_workers_and_clients_cost_no_committed_row(tmp_path: Path) -> None:
    from cluster_kills import Killer

    counts = Killer(tmp_path, seed=0).run(times(6, 100))
    assert counts.passed, str(counts)
    print(counts)
