"""A model of the user's own as the backbone of a fine-tune."""

from __future__ import annotations

from featcache import import_keras
from featcache.errors import InvalidRequest
from featcache.toolkit import (
    BuiltBackbone,
    ModelRequest,
    all_layers,
    is_hub_backbone,
    is_onnx_file,
    preserve_random_state,
)


def check_trainable(backbone: object) -> None:
    """Raise `InvalidRequest` for an ONNX network, and for a backbone of keras-hub."""
    if is_hub_backbone(backbone):
        raise InvalidRequest(
            f"{getattr(backbone, 'name', backbone)} is a backbone of keras-hub, of which only "
            "features are computed. Compare heads on them, or fine-tune keras.Model(images, "
            "features) of its layers, a model of your own.",
            received=str(getattr(backbone, "name", backbone)),
        )
    if is_onnx_file(backbone):
        raise InvalidRequest(
            f"{backbone} is an ONNX network, which cannot be fine-tuned: its graph is run as it "
            "is. Compare heads on its features, or fine-tune the Keras model.",
            received=str(backbone),
        )


def copy_own_model(resolved: BuiltBackbone) -> None:
    """Replace the user's own model by a copy, since the caller's must not change."""
    if isinstance(resolved.request, ModelRequest):
        own = resolved.keras_backbone.model
        with preserve_random_state():
            copy = import_keras().models.clone_model(own)
        copy.set_weights(own.get_weights())
        for layer in all_layers(copy):
            # Normalization keeps values that follow from its weights; else those of a new layer.
            if hasattr(layer, "finalize_state"):
                layer.finalize_state()
        resolved.keras_backbone.model = copy
