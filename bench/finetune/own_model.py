"""The user's own model as the backbone of a fine-tune."""

from __future__ import annotations

from featcache import import_keras
from featcache.toolkit import BuiltBackbone, ModelRequest, preserve_random_state


def copy_own_model(resolved: BuiltBackbone) -> None:
    """Replace the user's own model by a copy, since the caller's must not change."""
    if isinstance(resolved.request, ModelRequest):
        own = resolved.backbone.model
        with preserve_random_state():
            resolved.backbone.model = import_keras().models.clone_model(own)
        resolved.backbone.model.set_weights(own.get_weights())
