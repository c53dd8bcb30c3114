"""Small image backbones of keras-hub with random weights, one of each family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 32
_TRANSFORMER = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 16}
_SHAPE = (SIDE, SIDE, 3)
SCALE, OFFSET = (0.0171, 0.0175, 0.0174), (-2.1, -2.0, -1.8)


def _models() -> Any:
    import keras_hub

    return keras_hub.models


def vit(**options: Any) -> Any:
    settings = {**_TRANSFORMER, "mlp_dim": 24, "image_shape": _SHAPE, **options}
    return _models().ViTBackbone(**settings)


def deit() -> Any:
    return _models().DeiTBackbone(**_TRANSFORMER, intermediate_dim=24, image_shape=_SHAPE)


def dinov2(registers: int = 0, side: int = SIDE) -> Any:
    return _models().DINOV2Backbone(
        **_TRANSFORMER, intermediate_dim=24, num_register_tokens=registers,
        image_shape=(side, side, 3), position_embedding_shape=(48, 48, 3),
    )  # fmt: skip


def dinov3() -> Any:
    return _models().DINOV3Backbone(
        **_TRANSFORMER, intermediate_dim=24, num_register_tokens=2, image_shape=_SHAPE
    )


def _text(kind: str) -> Any:
    return getattr(_models(), f"{kind}TextEncoder")(
        vocabulary_size=20, embedding_dim=16, hidden_dim=16, num_layers=1, num_heads=2,
        intermediate_dim=24, max_sequence_length=8,
    )  # fmt: skip


def vision(kind: str) -> Any:
    return getattr(_models(), f"{kind}VisionEncoder")(
        **_TRANSFORMER, intermediate_dim=24, image_shape=_SHAPE
    )


def clip() -> Any:
    return _models().CLIPBackbone(vision("CLIP"), _text("CLIP"), projection_dim=6)


def metaclip() -> Any:
    return _models().MetaCLIP2Backbone(vision("MetaCLIP2"), _text("MetaCLIP2"), projection_dim=6)


def siglip() -> Any:
    return _models().SigLIPBackbone(vision("SigLIP"), _text("SigLIP"))


def resnet(side: int | None = None) -> Any:
    return _models().ResNetBackbone(
        [64], [3], [64, 16], [1, 1], [1, 2], "basic_block", image_shape=(side, side, 3)
    )


def hgnet() -> Any:
    return _models().HGNetV2Backbone(
        depths=[1, 1], embedding_size=8, hidden_sizes=[8, 16], stem_channels=[3, 4, 8],
        hidden_act="relu", use_learnable_affine_block=False,
        stackwise_stage_filters=[(8, 4, 8, 1, 1, 3), (8, 4, 16, 1, 1, 3)],
        apply_downsample=[False, True], use_lightweight_conv_block=[False, False],
    )  # fmt: skip


def mobilenet_v5() -> Any:
    none = [[0], [0]]
    return _models().MobileNetV5Backbone(
        stackwise_block_types=[["er"], ["uir"]], stackwise_num_blocks=[1, 1],
        stackwise_num_filters=[[8], [12]], stackwise_strides=[[2], [2]],
        stackwise_act_layers=[["relu"], ["relu"]], stackwise_exp_ratios=[[2.0], [2.0]],
        stackwise_se_ratios=[[0.0], [0.0]], stackwise_dw_kernel_sizes=[[0], [3]],
        stackwise_dw_start_kernel_sizes=none, stackwise_dw_end_kernel_sizes=none,
        stackwise_exp_kernel_sizes=[[3], [0]], stackwise_pw_kernel_sizes=[[1], [0]],
        stackwise_num_heads=none, stackwise_key_dims=none, stackwise_value_dims=none,
        stackwise_kv_strides=none, stackwise_use_cpe=[[False], [False]], use_msfa=False,
        image_shape=_SHAPE,
    )  # fmt: skip


def swin() -> Any:
    return _models().SwinTransformerBackbone(_SHAPE, 8, (1, 1), (1, 2), 4)


def mit() -> Any:
    return _models().MiTBackbone(
        layerwise_depths=[1, 1], num_layers=2, layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1], max_drop_path_rate=0.0, layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2], image_shape=_SHAPE, hidden_dims=[8, 16],
    )  # fmt: skip


def cspnet() -> Any:
    return _models().CSPNetBackbone(
        stem_filters=8, stem_kernel_size=3, stem_strides=1, stackwise_depth=[1, 1],
        stackwise_strides=[1, 2], stackwise_num_filters=[8, 16], stage_type="dark",
        block_type="dark_block", bottle_ratio=[1.0],
    )  # fmt: skip


def densenet() -> Any:
    return _models().DenseNetBackbone([1, 1], growth_rate=4)


def vgg() -> Any:
    return _models().VGGBackbone([1, 1], [4, 8], image_shape=_SHAPE)


def xception() -> Any:
    return _models().XceptionBackbone([[4, 8], [8, 8]], [True, False])


def mobilenet() -> Any:
    return _models().MobileNetBackbone(
        stackwise_expansion=[[8]], stackwise_num_blocks=[1], stackwise_num_filters=[[8]],
        stackwise_kernel_size=[[3]], stackwise_num_strides=[[2]], stackwise_se_ratio=[[0.25]],
        stackwise_activation=[["relu"]], stackwise_padding=[[1]], output_num_filters=16,
        depthwise_filters=8, depthwise_stride=2, depthwise_residual=False, last_layer_filter=8,
        squeeze_and_excite=0.5,
    )  # fmt: skip


def efficientnet() -> Any:
    return _models().EfficientNetBackbone(
        stackwise_kernel_sizes=[3], stackwise_num_repeats=[1], stackwise_input_filters=[8],
        stackwise_output_filters=[8], stackwise_expansion_ratios=[2],
        stackwise_squeeze_and_excite_ratios=[0.25], stackwise_strides=[2],
        stackwise_block_types=["v1"], width_coefficient=1.0, depth_coefficient=1.0,
    )  # fmt: skip


# Those of which a test computes the rows on every run; the others take some seconds more.
MAIN = ("ViT", "DINOv2", "DINOv3", "CLIP", "MetaCLIP 2", "SigLIP", "HGNetV2", "MobileNetV5")
FAMILIES: dict[str, Callable[[], Any]] = {
    "ViT": vit, "DeiT": deit, "DINOv2": lambda: dinov2(3), "DINOv3": dinov3, "CLIP": clip,
    "MetaCLIP 2": metaclip, "SigLIP": siglip, "Swin": swin, "MiT": mit, "ResNet": resnet,
    "HGNetV2": hgnet, "MobileNetV5": mobilenet_v5, "CSPNet": cspnet, "DenseNet": densenet,
    "VGG": vgg, "Xception": xception, "MobileNet": mobilenet, "EfficientNet": efficientnet,
}  # fmt: skip


def randomized(model: Any, seed: int = 0) -> Any:
    """Give all weights random values, so that no layer passes on what it is given."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" in str(weight.dtype):
            values = generator.uniform(0.05, 0.4, weight.shape)
            signs = 1 if "variance" in weight.path else generator.choice([1, 1, -1], weight.shape)
            weight.assign(values * signs)
    return model


def save(backbone: Any, folder: Path, **options: Any) -> Path:
    """Write a preset as keras-hub does, with an image converter."""
    import keras_hub

    backbone.save_to_preset(str(folder))
    settings = {"image_size": (SIDE, SIDE), "scale": SCALE, "offset": OFFSET, **options}
    keras_hub.layers.ImageConverter(**settings).save_to_preset(str(folder))
    return folder
