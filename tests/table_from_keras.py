"""What Keras itself says of each backbone; `python tests/table_from_keras.py` writes the table.

The package ships the table (`featcache/backbones.json`) so that neither a cache hit nor a
listing needs Keras. The drift test in test_backbone_table.py compares the two.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

TABLE = Path(__file__).parents[1] / "featcache" / "backbones" / "backbones.json"
_MODULES = {
    "ConvNeXt": "convnext", "DenseNet": "densenet", "EfficientNetB": "efficientnet",
    "EfficientNetV2": "efficientnet_v2", "InceptionResNetV2": "inception_resnet_v2",
    "InceptionV3": "inception_v3", "MobileNet$": "mobilenet", "MobileNetV2": "mobilenet_v2",
    "MobileNetV3": "mobilenet_v3", "NASNet": "nasnet", r"ResNet\d+$": "resnet",
    r"ResNet\d+V2": "resnet_v2", "VGG16": "vgg16", "VGG19": "vgg19", "Xception": "xception",
}  # fmt: skip


class _AskedForWeights(BaseException):
    pass


def constructors() -> list[str]:
    import keras

    return sorted(name for name in dir(keras.applications) if name[0].isupper())


def module_of(constructor: str) -> str:
    return next(m for pattern, m in _MODULES.items() if re.match(pattern, constructor))


def public_name(constructor: str) -> str:
    name = re.sub(r"(ResNet\d+)(V2)$", r"\1_\2", constructor)
    name = re.sub(r"(?<=[a-z])V(?=\d)", "_V", name)
    name = re.sub(r"^(InceptionResNet|EfficientNet|MobileNet|Inception)(?=[A-Z])", r"\1_", name)
    name = re.sub(r"(?<=[0-9])(?=(Large|Small))", "_", name)
    name = re.sub(r"(ConvNe[X]t|NASNet|EfficientNet_V2)(?=[A-Z])", r"\1_", name)
    name = name.replace("InceptionResNet", "Inception_ResNet").lower()
    return re.sub(r"_+", "_", name)


def weights_file(constructor: str, *, top: bool = True) -> dict[str, Any]:
    """Name, address and hash of the ImageNet file, as the constructor asks for them."""
    import keras
    from keras.src.utils import file_utils

    def ask(*args: Any, **kwargs: Any) -> None:
        raise _AskedForWeights(args, kwargs)

    with mock.patch.object(file_utils, "get_file", ask), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the default size, which is the one that is meant
        try:
            size = {} if top else {"input_shape": _native(constructor)}
            getattr(keras.applications, constructor)(weights="imagenet", include_top=top, **size)
        except _AskedForWeights as asked:
            (file, url), kwargs = asked.args
    return {"file": file, "url": url, "hash": kwargs.get("file_hash")}


def _native(constructor: str) -> tuple[int, int, int]:
    """The input shape of a constructor's own weights; without the top some leave it open."""
    side = {"NASNetLarge": 331}.get(constructor, 224)
    return (side, side, 3)


def without_top(constructor: str, layer: str) -> dict[str, Any]:
    """The file without the top, the layers that the top's weights lead to, and a layer without."""
    import keras

    from featcache.backbones.architecture import layer_names

    build = getattr(keras.applications, constructor)
    whole = build(weights=None)
    size = tuple(side or 224 for side in whole.input_shape[1:3])
    # Left open, NASNet would be another network.
    body = build(weights=None, include_top=False, input_shape=(*size, 3))
    names = {id(layer): name for name, layer in layer_names(whole).items()}
    ours = {id(weight) for weight in whole.weights[: len(body.weights)]}
    above = [
        names[id(member)]
        for member in whole.layers[len(body.layers) - 1 :]  # the top is a chain at the end
        if not {id(w) for w in keras.Model(whole.inputs, member.output).weights} <= ours
    ]
    file = weights_file(constructor, top=False)
    return {
        "notop_file": file["file"],
        "notop_hash": file["hash"],
        "notop_layer": names[id(whole.layers[len(body.layers) - 1])] if layer in above else layer,
        "top_layers": tuple(above),
    }


def preprocess_input(entry: Any) -> Any:
    """The function that a backbone's own makers prepare pixels with."""
    import keras

    if entry.packaged:  # trained behind a Rescaling layer of these constants
        return lambda pixels: pixels / 127.5 - 1
    return getattr(keras.applications, entry.module).preprocess_input


def preprocessing_mode(constructor: str) -> str:
    """Which of the four known rules the family's own `preprocess_input` follows."""
    import keras

    from featcache.backbones import preprocessing

    own = getattr(keras.applications, module_of(constructor)).preprocess_input
    pixels = preprocessing.synthetic_images().astype("float32")
    expected = np.asarray(own(pixels.copy()))
    for mode in ("none", "tf", "caffe", "torch"):
        if np.allclose(preprocessing.apply(mode, pixels), expected, atol=1e-4):
            return mode
    raise AssertionError(f"{constructor}: preprocess_input follows no known rule")


def row(constructor: str) -> dict[str, Any]:
    import keras

    from featcache.backbones.model import layer_names

    model = getattr(keras.applications, constructor)(weights=None)
    names = layer_names(model)
    kept = [
        layer
        for layer in model.layers
        if type(layer).__name__ not in ("Dropout", "Flatten", "Reshape")
    ]
    # The class scores are the last weights; what feeds them is the embedding.
    last = max(i for i, layer in enumerate(kept) if layer.weights)
    penultimate = kept[last - 1]
    size = model.input_shape[1] or 224
    family = {"EfficientNetB": "efficientnet"}.get(constructor[:13])
    layer = next(name for name, layer in names.items() if layer is penultimate)
    return {
        "name": public_name(constructor),
        "constructor": constructor,
        "module": module_of(constructor),
        "image_size": size,
        "preprocessing": preprocessing_mode(constructor),
        "layer": layer,
        "width": int(penultimate.output.shape[-1]),
        "parameters": int(model.count_params()),
        "second_scaling": family is not None,
        **weights_file(constructor),
        **without_top(constructor, layer),
    }


def pocket_row() -> dict[str, Any]:
    """The row of the package's own backbone."""
    import keras

    from featcache.backbones import pocket

    model = pocket.build(keras, (96, 96))
    return {
        "name": "pocket",
        "constructor": "pocket",
        "module": "pocket",
        "image_size": 96,
        "preprocessing": "tf",
        "layer": "embedding",
        "width": pocket.WIDTH,
        "parameters": int(model.count_params()),
        "second_scaling": False,
        "file": pocket.FILE.name,
        "url": "",
        "hash": hashlib.sha256(pocket.FILE.read_bytes()).hexdigest(),
        "notop_file": None,
        "notop_hash": None,
        "notop_layer": "embedding",
        "top_layers": (),
    }


def main() -> None:
    rows = sorted([*(row(name) for name in constructors()), pocket_row()], key=lambda r: r["name"])
    text = ",\n".join("  " + json.dumps(r) for r in rows)
    TABLE.write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
