"""The model card of a bundle: what it is, what it reached, where it may fail.

Mitchell et al. 2019, "Model cards for model reporting", arXiv:1810.03993.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._version import __version__
from ..backbones.spec import BackboneSpec
from .classifier import Classifier

_SHOWN = 200


def model_card(
    classifier: Classifier,
    spec: BackboneSpec,
    arguments: Mapping[str, Any],
    metrics: Mapping[str, float],
    metadata: Mapping[str, str],
) -> str:
    """Write the model card, in Markdown."""
    names = [str(name) for name in classifier.classes]
    shown = ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
    height, width = spec.image_size
    lines = [
        f"# Photos to one of {len(names)} classes",
        "",
        f"A head on the frozen embeddings of {arguments.get('backbone')}, made by featcache "
        f"{__version__}.",
        "",
        "## What it is",
        "",
        f"- Backbone: {arguments.get('backbone')}, layer `{spec.layer}`, weights "
        f"{arguments.get('weights')}; not in this file, but fixed by the hash of its weights.",
        f"- Photos: {width} x {height} pixels, `{spec.resize}`.",
        f"- Head: {' > '.join(step.kind for step in classifier.steps)}, {classifier.width} numbers "
        f"to {len(names)} scores, temperature {classifier.temperature:.4g}.",
        f"- Key of the features: `{spec.key}`.",
        *(f"- {name}: {value}" for name, value in metadata.items()),
        "",
        "## What it reached",
        "",
        *(
            ["| metric | value |", "| --- | --- |"]
            + [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
            if metrics
            else ["Nothing was measured, or it was not said."]
        ),
        "",
        "## Where it may fail",
        "",
        "It always answers with one of its classes, also for a photo that shows none of them. "
        + _probabilities(classifier),
        "",
        "## Classes",
        "",
        shown,
        "",
    ]
    return "\n".join(lines)


def _probabilities(classifier: Classifier) -> str:
    if classifier.is_calibrated:
        return (
            "Probabilities are calibrated on photos like those that it was trained on, and on no "
            "others."
        )
    return (
        "Probabilities are as the estimator gives them: no temperature was fitted, so they may be "
        "too high or too low."
    )
