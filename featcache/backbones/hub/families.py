"""The image backbones of keras-hub by the names of their classes, and what their outputs are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..spec import Pooling

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """What the output of a class of backbones is.

    Attributes
    ----------
    title : str
        As people call the family.
    prefix : callable or None
        For a configuration the number of tokens before those of the patches: a CLS token, a
        distillation token, registers. None for feature maps.
    pooled : bool
        Whether the network itself makes one vector of the tokens.
    towers : tuple of str
        Of a pair of an image tower and another one: the keys of both in the configuration.
    any_size : bool
        Whether a preset can be built for images of other sizes: it has no position embeddings, or
        they are interpolated or computed.
    """

    title: str
    prefix: Callable[[Config], int] | None = None
    pooled: bool = False
    towers: tuple[str, ...] = ()
    any_size: bool = False

    def default_pooling(self, config: Config) -> Pooling | None:
        """Return the pooling of the output unless another one is requested."""
        if self.prefix is None or self.pooled:
            return None
        return "cls" if self.prefix(config) else "avg"


def _tokens(count: int) -> Callable[[Config], int]:
    return lambda config: count


_TOWERS = ("vision_encoder", "text_encoder")
FAMILIES: dict[str, Family] = {
    "ViTBackbone": Family("ViT", lambda config: int(bool(config.get("use_class_token", True)))),
    "DeiTBackbone": Family("DeiT", _tokens(2)),
    "DINOV2Backbone": Family(
        "DINOv2", lambda config: 1 + config.get("num_register_tokens", 0), any_size=True
    ),
    "DINOV3Backbone": Family(
        "DINOv3", lambda config: 1 + config.get("num_register_tokens", 4), any_size=True
    ),
    "CLIPBackbone": Family("CLIP", _tokens(1), towers=_TOWERS),
    "CLIPVisionEncoder": Family("CLIP", _tokens(1)),
    "MetaCLIP2Backbone": Family("MetaCLIP 2", _tokens(1), pooled=True, towers=_TOWERS),
    "SigLIPBackbone": Family("SigLIP", _tokens(0), pooled=True, towers=_TOWERS),
    "SigLIPVisionEncoder": Family("SigLIP", _tokens(0), pooled=True),
    "SwinTransformerBackbone": Family("Swin Transformer", _tokens(0)),
    "MiTBackbone": Family("MiT (SegFormer)", any_size=True),
    "CSPNetBackbone": Family("CSPNet", any_size=True),
    "DenseNetBackbone": Family("DenseNet", any_size=True),
    "EfficientNetBackbone": Family("EfficientNet", any_size=True),
    "HGNetV2Backbone": Family("HGNetV2", any_size=True),
    "MobileNetBackbone": Family("MobileNet", any_size=True),
    "MobileNetV5Backbone": Family("MobileNetV5", any_size=True),
    "ResNetBackbone": Family("ResNet", any_size=True),
    "VGGBackbone": Family("VGG", any_size=True),
    "XceptionBackbone": Family("Xception", any_size=True),
}
