"""The Hugging Face Hub reads the metadata of a model card, whatever names it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.errors import InvalidRequest
from heads import make_head

NAMES = ["a: |\n---\n# b", '"c" \U0001f436', "d\x1b[0m"]


@pytest.fixture
def bundle() -> featcache.Bundle:
    features = featcache.import_features(
        np.eye(3), [f"{i:064x}" for i in range(3)], featcache.ImportedModel("m", "1"), labels=NAMES
    )
    head = make_head("logistic", C=1.0).fit(features.X, features.labels)
    metrics = {"accuracy": 0.9, "f1 | macro: #": 0.25, "log loss": float("nan")}
    metadata = {"Data": NAMES[0], "license": "apache-2.0"}
    return featcache.make_bundle(features, head, metrics=metrics, metadata=metadata)


def test_the_hub_reads_its_metadata(bundle: featcache.Bundle) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(bundle.card()).data
    assert (data.library_name, data.pipeline_tag) == ("featcache", "image-classification")
    assert (data.license, data.model_name) == ("apache-2.0", "featcache classifier")
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"accuracy": 0.9, "f1 | macro: #": 0.25}
    assert {result.dataset_name for result in data.eval_results} == {"a: |\\n---\\n# b"}
    bare = featcache.Bundle(bundle.classifier, bundle.spec, bundle.arguments)
    assert hub.ModelCard(bare.card()).data.eval_results is None


def test_no_name_adds_a_line_or_a_column(bundle: featcache.Bundle) -> None:
    lines = bundle.card().splitlines()
    assert [line for line in lines if line == "---"] == ["---"] * 2
    assert "# b" not in lines
    assert "| f1 \\| macro: # | 0.2500 |" in lines
    assert "\x1b" not in bundle.card()


def test_it_is_written_beside_a_model(bundle: featcache.Bundle, tmp_path: Path) -> None:
    path = tmp_path / "new" / "README.md"
    bundle.save_card(path)
    assert path.read_text("utf-8") == bundle.card()
    with pytest.raises(InvalidRequest, match="is not overwritten"):
        bundle.save_card(path)
    path.write_text("old")
    bundle.save_card(path, overwrite=True)
    assert path.read_text("utf-8") == bundle.card()
