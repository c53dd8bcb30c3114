"""The model card of a bundle: details, metrics, limitations and classes.

After Mitchell et al. 2019, "Model cards for model reporting", arXiv:1810.03993.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .._version import __version__
from ..backbones.spec import BackboneSpec
from ..extraction.derived.spec import DerivedSpec, FeatureSpec, arguments_of_parts
from ..hdf5.row_dtype import DEFAULT_ROW_DTYPE
from ..printable import printable
from .classifier import Classifier

_MAX_SHOWN = 200


def model_card(
    classifier: Classifier,
    spec: FeatureSpec,
    arguments: Mapping[str, Any],
    metrics: Mapping[str, float],
    metadata: Mapping[str, str],
) -> str:
    """Return the model card, in Markdown, with the metadata that the Hugging Face Hub reads."""
    names = [printable(name) for name in classifier.classes]
    backbones = " and a frozen ".join(
        str(own.get("backbone")) for own in arguments_of_parts(arguments)
    )
    shown = ", ".join(names[:_MAX_SHOWN]) + (" ..." if len(names) > _MAX_SHOWN else "")
    lines = [
        *_front_matter(metrics, metadata),
        f"# Classifier of photos into {len(names)} classes",
        "",
        f"A head on the embeddings of a frozen {backbones}, made by featcache {__version__}.",
        "",
        "## Model details",
        "",
        *_details(classifier, spec, arguments),
        *(f"- {printable(name)}: {printable(value)}" for name, value in metadata.items()),
        "",
        "## Use",
        "",
        *_use(spec),
        "",
        "## Metrics",
        "",
        *_table(metrics),
        "",
        "## Limitations",
        "",
        "It always predicts one of its classes, also for a photo that shows none of them. "
        + _probabilities(classifier),
        "",
        "## Classes",
        "",
        shown,
        "",
    ]
    return "\n".join(lines)


def _front_matter(metrics: Mapping[str, float], metadata: Mapping[str, str]) -> list[str]:
    """Return the block of YAML; texts are quoted as in JSON, which is YAML as well."""
    given = {name.lower(): value for name, value in metadata.items()}
    lines = ["---", "library_name: featcache", "pipeline_tag: image-classification", "tags:"]
    lines += ["- image-classification", "- transfer-learning", "- frozen-backbone"]
    if "license" in given:
        lines.append(f"license: {_quoted(given['license'])}")
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    if finite:
        data = _quoted(given.get("data", "not named"))
        lines += [
            "model-index:",
            '- name: "featcache classifier"',
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {data}",
            f"      type: {data}",
            "    metrics:",
        ]
        for name, value in finite.items():
            lines += [f"    - type: {_quoted(name)}", f"      value: {value:.6g}"]
    return [*lines, "---", ""]


def _quoted(text: str) -> str:
    return json.dumps(printable(text), ensure_ascii=False)


def _use(spec: FeatureSpec) -> list[str]:
    if spec.is_imported:
        return ["`featcache.load_bundle(file).predict_proba(features)`, of imported features."]
    needed = ", backbone=..." if spec.is_own_model else ""
    return [
        "```python",
        "import featcache",
        "",
        f'with featcache.Predictor("model.featcache"{needed}) as predictor:',
        '    print(predictor.predict("photo.jpg", top=5))',
        "```",
    ]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _details(classifier: Classifier, spec: FeatureSpec, arguments: Mapping[str, Any]) -> list[str]:
    parts = spec.parts if isinstance(spec, DerivedSpec) else (spec,)
    own = arguments_of_parts(arguments)
    return [
        *(line for part, one in zip(parts, own, strict=True) for line in _backbone(part, one)),
        *_steps(spec),
        f"- Head: {' > '.join(step.kind for step in classifier.steps)}, {classifier.width} values "
        f"to {len(classifier.classes)} scores, temperature {classifier.temperature:.4g}.",
        *dict.fromkeys(line for part in parts for line in _stored_rows(part)),
        f"- Key of the features: `{spec.key}`.",
    ]


def _backbone(spec: BackboneSpec, arguments: Mapping[str, Any]) -> list[str]:
    if spec.is_imported:
        return [
            "- Embeddings: computed elsewhere and imported, so that photos cannot be predicted."
        ]
    height, width = spec.image_size
    return [
        f"- Backbone: {arguments.get('backbone')}, layer `{spec.layer}`, weights "
        f"{arguments.get('weights')}. It is not in this file, which holds the hash of its "
        "weights.",
        f"- Input: photos, resized to {width} x {height} pixels, `{spec.resize}`.",
    ]


def _steps(spec: FeatureSpec) -> list[str]:
    if not isinstance(spec, DerivedSpec) or not spec.steps:
        return []
    return [f"- Steps on the embeddings: {' > '.join(map(str, spec.steps))}."]


def _stored_rows(spec: BackboneSpec) -> list[str]:
    if spec.row_dtype == DEFAULT_ROW_DTYPE:
        return []
    return [f"- Embeddings: rounded to {spec.row_dtype}, in training and in prediction."]


def _table(metrics: Mapping[str, float]) -> list[str]:
    if not metrics:
        return ["No metrics were given."]
    rows = [f"| {_cell(name)} | {value:.4f} |" for name, value in metrics.items()]
    return ["| metric | value |", "| --- | --- |", *rows]


def _probabilities(classifier: Classifier) -> str:
    if classifier.is_calibrated:
        return (
            "Its probabilities are calibrated for photos like those that it was trained on, and "
            "for no others."
        )
    return (
        "Its probabilities are those of the estimator: no temperature was fitted, so they may be "
        "too high or too low."
    )
