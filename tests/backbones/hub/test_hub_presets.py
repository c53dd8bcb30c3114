"""Presets of keras-hub in use: found, computed once, listed, and refused if they are hostile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras_hub", reason="keras-hub is not installed (the extra hub)")

import keras_hub

import bench
import featcache
import featcache.cli
import heads
from featcache import Normalization, explain, extract, load_backbone
from featcache.backbones.hub import preset as presets
from featcache.backbones.hub.built import is_hub_backbone
from featcache.backbones.hub.converter import read_converter
from featcache.backbones.hub.library import fetch_file
from featcache.backbones.request import BackboneOptions, make_request
from featcache.errors import (
    BundleMismatch,
    InvalidRequest,
    MissingExtra,
    ModelRefused,
    UnknownBackbone,
    UnknownLayer,
    WeightsMismatch,
    WeightsUnavailable,
)
from featcache.extraction.cluster.tasks import check_saved
from hub_models import SIDE, clip, dinov2, randomized, resnet, save, siglip, vgg, vit


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of a small vision transformer."""
    return save(randomized(vit()), tmp_path_factory.mktemp("saved") / "small_vit")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "copied_vit"))


def change(folder: Path, **values: Any) -> Path:
    """Change settings in config.json."""
    file = folder / "config.json"
    record = json.loads(file.read_text())
    record["config"] |= values
    file.write_text(json.dumps(record))
    return folder


def test_a_preset_is_computed_once_and_is_its_backbone(
    photos: Path, folder: Path, tmp_path: Path
) -> None:
    first = extract(f"hub:{folder}", photos, pooling="avg")
    assert first.summary.computed == 12
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    assert extract(moved, photos, pooling="avg").summary.computed == 0
    # The instance has no converter, and the same key with the same preprocessing.
    std = [1 / (255 * one) for one in (0.0171, 0.0175, 0.0174)]
    mean = [-one * other for one, other in zip((-2.1, -2.0, -1.8), std, strict=True)]
    rule = Normalization(mean=mean, std=std)
    built = randomized(vit())
    options: dict[str, Any] = {"preprocessing": rule, "resize": "crop", "pooling": "avg"}
    assert extract(built, photos, **options).summary.computed == 0
    cls = explain(moved, photos)
    assert cls.differs_in == ["pooling"]
    change(moved, layer_norm_epsilon=1e-3)
    assert explain(moved, photos, pooling="avg").stored == 0


def test_tokens_are_pooled_by_what_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    model, plain = randomized(vit()), randomized(vit(use_class_token=False))

    def rows(backbone: Any, pooling: Any, layer: str | None = None) -> Any:
        options: dict[str, Any] = {"preprocessing": "unit", "layer": layer, "pooling": pooling}
        built = load_backbone(backbone, cache_dir=tmp_path, **options)
        return built.backbone.embed_untraced(pixels)

    tokens = rows(model, "flat").reshape(2, 17, 16)
    for pooling, expected in [
        (None, tokens[:, 0]), ("cls", tokens[:, 0]), ("avg", tokens[:, 1:].mean(1)),
        ("max", tokens[:, 1:].max(1)),
    ]:  # fmt: skip
        assert np.abs(rows(model, pooling) - expected).max() < 1e-5
    patches = rows(plain, "flat").reshape(2, 16, 16)
    assert np.abs(rows(plain, None) - patches.mean(1)).max() < 1e-5
    with pytest.raises(InvalidRequest, match="tokens of patches only"):
        rows(plain, "cls")
    inner = [rows(model, pooling, "vit_patching_and_embedding") for pooling in ("flat", "avg")]
    assert np.abs(inner[0].reshape(2, 17, 16)[:, 1:].mean(1) - inner[1]).max() < 1e-5
    with pytest.raises(UnknownLayer, match="no layer 'tokens'"):
        rows(model, None, "tokens")


def test_a_network_that_pools_its_tokens_itself_gives_them_on_request(tmp_path: Path) -> None:
    model = randomized(siglip())
    pixels = np.zeros((1, SIDE, SIDE, 3), np.uint8)

    def built(**options: Any) -> Any:
        return load_backbone(model, preprocessing="tf", cache_dir=tmp_path, **options)

    pooled, mean = built(), built(pooling="avg")
    assert (pooled.spec.pooling, pooled.spec.layer) == ("none", "output")
    assert (mean.spec.pooling, mean.spec.layer) == ("avg", "tokens")
    assert built(layer="tokens", pooling="avg").spec == mean.spec
    flat = built(pooling="flat").backbone.embed_untraced(pixels).reshape(1, 16, 16)
    assert np.abs(flat.mean(1) - mean.backbone.embed_untraced(pixels)).max() < 1e-5
    with pytest.raises(InvalidRequest, match="tokens of patches only"):
        built(pooling="cls")
    tower = load_backbone(model.vision_encoder, preprocessing="tf", cache_dir=tmp_path)
    assert tower.spec == pooled.spec


def test_presets_take_images_of_other_sizes(tmp_path: Path) -> None:
    folder = save(randomized(dinov2(1)), tmp_path / "dino")
    pixels = np.random.default_rng(2).integers(0, 256, (2, 16, 16, 3), np.uint8)
    small = load_backbone(folder, image_size=16, preprocessing="none", cache_dir=tmp_path)
    assert small.spec.image_size == (16, 16)
    again = keras_hub.models.Backbone.from_preset(str(folder), image_shape=(16, 16, 3))
    expected = np.asarray(again({"images": pixels.astype("f4")}))[:, 0]
    assert np.abs(small.backbone.embed_untraced(pixels) - expected).max() < 1e-4
    with pytest.raises(InvalidRequest, match="cannot take images of 16 x 24 pixels"):
        load_backbone(folder, image_size=(16, 24), cache_dir=tmp_path)
    with pytest.raises(InvalidRequest, match="accepts only images of 32 x 32"):
        load_backbone(save(vit(), tmp_path / "vit"), image_size=16, cache_dir=tmp_path)
    convolutions = save(randomized(vgg()), tmp_path / "vgg")
    assert load_backbone(convolutions, image_size=(24, 16), cache_dir=tmp_path).width == 8
    open_sides = save(randomized(resnet()), tmp_path / "resnet", image_size=(40, 24))
    assert load_backbone(open_sides, cache_dir=tmp_path).spec.image_size == (40, 24)


def test_a_bundle_asks_for_the_preset(photos: Path, folder: Path, tmp_path: Path) -> None:
    features = extract(folder, photos)
    head = heads.LogisticHead().fit(features)
    featcache.make_bundle(features, head).save(tmp_path / "b.featcache")
    bundle = featcache.load_bundle(tmp_path / "b.featcache")
    with pytest.raises(BundleMismatch, match="pass that model or preset"):
        bundle.predict(photos)
    expected = head.predict(np.asarray(features.X))
    names = [features.classes[int(one)] for one in expected]
    found = bundle.predict(photos, backbone=folder)
    assert [p.top_classes[0][0] for p in found] == names
    with featcache.Predictor(bundle, backbone=f"hub:{folder}") as predictor:
        assert predictor.predict(features.paths[0])[0].top_classes[0][0] == names[0]
    assert bundle.file_options == ("--backbone", f"hub:{folder}")
    bundle.to_onnx(tmp_path / "b.onnx", backbone=folder)
    assert (tmp_path / "b.onnx").stat().st_size > 1000


def test_a_cluster_takes_presets_and_no_backbones_in_memory(folder: Path) -> None:
    check_saved(make_request(folder))
    with pytest.raises(InvalidRequest, match=r"backbone\.save_to_preset\('folder'\)"):
        check_saved(make_request(vit(), BackboneOptions(preprocessing="unit")))


@pytest.mark.slow
def test_a_comparison_takes_presets_and_does_not_fine_tune_them(photos: Path, folder: Path) -> None:
    split = bench.make_split(featcache.load_dataset(photos), test_size=0.5, random_state=0)
    head = bench.CachedHead(str(folder), "logistic")
    assert "head" in str(bench.evaluate({"head": head}, split))
    assert head.parts[0].parameters() == 5368
    assert head.network()["kinds"]["ViTEncoder"] == 1
    for backbone in (str(folder), vit()):
        with pytest.raises(InvalidRequest, match="of which only features are computed"):
            bench.FineTuned(backbone, 0.3, preprocessing="unit")


@pytest.mark.slow
def test_openvino_agrees(photos: Path, folder: Path, tmp_path: Path) -> None:
    plain = np.asarray(extract(folder, photos, engine="keras", cache_dir=tmp_path / "a").X)
    other = extract(folder, photos, engine="openvino", cache_dir=tmp_path / "b")
    assert other.summary.engine == "openvino"
    scale = np.abs(plain).max()
    assert np.abs(np.asarray(other.X) - plain).max() < 1e-4 * scale


def test_bfloat16_needs_layers_that_take_their_own_settings(tmp_path: Path) -> None:
    pixels = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    options: dict[str, Any] = {"precision": "bfloat16", "preprocessing": "unit"}
    with pytest.raises(InvalidRequest, match="and one cannot"):
        load_backbone(vit(), cache_dir=tmp_path, **options).backbone.embed(pixels)


def test_stored_rows_need_neither_keras_nor_keras_hub(photos: Path, folder: Path) -> None:
    extract(folder, photos)
    code = (
        "import sys, featcache, numpy\n"
        f"f = featcache.extract('hub:' + {str(folder)!r}, {str(photos)!r})\n"
        "numpy.asarray(f.X)\n"
        "names = ('keras_hub', 'keras', 'tensorflow', 'kagglehub')\n"
        "print(f.summary.computed, [m for m in names if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"


def test_the_package_may_be_missing(
    folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    for backbone in ("hub:vit_base_patch16_224_imagenet", f"hub:{folder}"):
        with pytest.raises(MissingExtra, match=r"pip install -e '\.\[hub\]'"):
            extract(backbone, photos, cache_dir=tmp_path / "cache")
    known = metadata.version

    def version(name: str) -> str:
        if name == "keras-hub":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(MissingExtra, match="keras-hub"):
        extract(folder, photos, cache_dir=tmp_path / "cache")


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert featcache.cli.main(["backbones", "--hub"]) == 0
    listed = capsys.readouterr().out
    for name in ("vit_base_patch16_224_imagenet", "dinov2_small", "siglip_base_patch16_224"):
        assert f"hub:{name} " in listed
    assert "bert" not in listed
    assert featcache.cli.main(["backbones", "--hub", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["clip_vit_base_patch16"]["family"] == "CLIP"


def test_names_and_addresses_are_downloaded(
    photos: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(preset: str, name: str) -> str:
        asked.append((preset, name))
        if not (folder / name).exists():
            raise FileNotFoundError(name)
        link = tmp_path / f"{len(asked)}-{name}"  # to a file whose name is a hash
        link.symlink_to(shutil.copy(folder / name, tmp_path / f"{len(asked)}"))
        return str(link)

    monkeypatch.setattr(presets, "fetch_file", fetch)
    for backbone in ("hub:vit_base_patch16_224_imagenet", "hub:hf://me/my_vit"):
        built = load_backbone(backbone, cache_dir=tmp_path)
        assert built.request.backbone == backbone
    files = ["config.json", "image_converter.json", "model.weights.h5"]
    assert asked[:3] == [("vit_base_patch16_224_imagenet", name) for name in files]
    assert asked[3][0] == "hf://me/my_vit"
    assert built.request.name == "my_vit"

    (folder / "image_converter.json").unlink()
    (folder / "model.weights.h5").unlink()
    with pytest.raises(WeightsUnavailable, match=r"has no model\.weights\.h5"):
        load_backbone("hub:hf://me/my_vit", cache_dir=tmp_path)

    def offline(preset: str, name: str) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(presets, "fetch_file", offline)
    with pytest.raises(WeightsUnavailable, match=r"cannot be downloaded \(no network\)"):
        extract("hub:vit_base_patch16_224_imagenet", photos)


def test_files_come_from_keras_hub(folder: Path) -> None:
    assert fetch_file(str(folder), "config.json") == str(folder / "config.json")
    with pytest.raises(FileNotFoundError):
        fetch_file(str(folder), "model.weights.json")


def test_other_names_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackbone, match=r"Did you mean .*'vit_base_patch16_224_imagenet'"):
        load_backbone("hub:vit_base_patch16_224", preprocessing="unit")
    with pytest.raises(UnknownBackbone, match="no image backbone 'bert_base_en'"):
        load_backbone("hub:bert_base_en")
    for name in ("hub:", "hub:s3://bucket", "hub:a name"):
        with pytest.raises(InvalidRequest, match="is not a preset of keras-hub"):
            load_backbone(name)
    with pytest.raises(WeightsUnavailable, match="There is no folder"):
        load_backbone(f"hub:{tmp_path}/nowhere")
    with pytest.raises(WeightsUnavailable, match=r"there is no config\.json"):
        load_backbone(tmp_path)


def test_backbones_that_are_no_image_towers_or_cannot_be_told_apart_are_refused(
    tmp_path: Path,
) -> None:
    import keras

    texts = clip().text_encoder
    assert [is_hub_backbone(one) for one in (texts, "hub:name", "resnet50")] == [True, True, False]
    with pytest.raises(InvalidRequest, match="CLIPTextEncoder of keras-hub is not an image"):
        load_backbone(texts, preprocessing="unit", cache_dir=tmp_path)
    with pytest.raises(InvalidRequest, match="How are images prepared"):
        load_backbone(vit(), cache_dir=tmp_path)
    tuned = vit()
    layer = next(one for one in tuned._flatten_layers() if isinstance(one, keras.layers.Dense))
    layer.enable_lora(2)
    with pytest.raises(InvalidRequest, match="LoRA"):
        load_backbone(tuned, preprocessing="unit", cache_dir=tmp_path)

    class Own(keras_hub.models.ViTBackbone):  # type: ignore[misc]
        pass

    settings = {"image_shape": (16, 16, 3), "patch_size": 8, "num_layers": 1, "num_heads": 1}
    mine = Own(**settings, hidden_dim=4, mlp_dim=4)
    own = load_backbone(mine, preprocessing="unit", cache_dir=tmp_path)
    assert own.spec.pooling == "avg"  # a model of one's own, as any other
    pair = clip()
    pair.vision_encoder = mine
    with pytest.raises(InvalidRequest, match="vision_encoder of the CLIPBackbone is a Own, not"):
        load_backbone(pair, preprocessing="unit", cache_dir=tmp_path)
    replaced = vit()
    replaced.layers[1].call = lambda x: x
    with pytest.raises(InvalidRequest, match="is not keras-hub's own"):
        load_backbone(replaced, preprocessing="unit", cache_dir=tmp_path)
    odd = vit()
    odd.dropout_rate = np.zeros(2)
    with pytest.raises(InvalidRequest, match="hold a ndarray"):
        load_backbone(odd, preprocessing="unit", cache_dir=tmp_path)


def module(record: dict[str, Any]) -> None:
    record["module"] = "os"


def class_name(record: dict[str, Any]) -> None:
    record["class_name"] = "Lambda"


def class_list(record: dict[str, Any]) -> None:
    record["class_name"] = ["ViTBackbone"]


def registered(record: dict[str, Any]) -> None:
    record["registered_name"] = "Custom>ViTBackbone"


def more(record: dict[str, Any]) -> None:
    record["inbound_nodes"] = []


def no_settings(record: dict[str, Any]) -> None:
    record["config"] = None


def setting(value: Any, name: str = "num_layers") -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        record["config"][name] = value

    return change


DTYPE = {"module": "keras", "class_name": "QuantizedDTypePolicy", "config": {"name": "int8"}}
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a module": (module, "names 'os"),
    "a class": (class_name, "'Lambda', which is not an image backbone"),
    "another class": (registered, "which is not a class of keras-hub"),
    "more than a record": (more, "holds 'inbound_nodes'"),
    "no settings": (no_settings, "is not an object"),
    "an object": (setting({"class_name": "function", "config": "os.system"}), "is an object"),
    "a path": (setting("/etc/passwd"), "not an option's word"),
    "a dotted name": (setting("os.system"), "not an option's word"),
    "a key": (setting(1, "__init__"), "holds the key '__init__'"),
    "many layers": (setting(10**6), "more than 1,024 layers"),
    "layers below zero": (setting(-(10**6)), "more than 1,024 layers"),
    "many values": (setting([0] * 30_000), "too many values"),
    "deep lists": (setting([[[[[[[[1]]]]]]]]), "nested deeply"),
    "a large number": (setting(10**9, "hidden_dim"), "limit is 10,000,000"),
    "NaN": (setting(float("nan"), "dropout_rate"), "limit is"),
    "a window": (setting(10**4, "window_size"), "limit is 32"),
    "a list for a class": (class_list, "is not an image backbone"),
    "a list for a type": (setting({**DTYPE, "config": {"name": []}}, "dtype"), "not floating"),
    "a word for a count": (setting("many", "num_register_tokens"), "not a whole number"),
    "small patches": (setting(1, "patch_size"), "could not be loaded"),
    "stages of words": (setting([["a", "b", None, [], {}, 3]], "stackwise_stage_filters"), "."),
    "a large image": (setting([10**6, 10**6, 3], "image_shape"), r"not \[height, width, 3\]"),
    "no image": (setting("all", "image_shape"), r"not \[height, width, 3\]"),
    "stages": (
        setting([[8, 4, 8, 1000, 1000, 3]], "stackwise_stage_filters"), "more than 1,024 layers",
    ),
    "whole numbers": (setting(DTYPE, "dtype"), "not floating-point"),
    "numbers of words": (setting("int8", "dtype"), "not floating-point"),
    "large weights": (setting(10**6, "mlp_dim"), "more than .* weights"),
    "another shape": (setting(24, "mlp_dim"), "."),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_settings_are_refused(folder: Path, tmp_path: Path, case: str) -> None:
    hostile, message = REFUSED[case]
    file = folder / "config.json"
    record = json.loads(file.read_text())
    hostile(record)
    if case == "another shape":
        record["config"]["mlp_dim"] = 25
    file.write_text(json.dumps(record))
    with pytest.raises(ModelRefused, match=message):
        load_backbone(folder, cache_dir=tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '"a"', "{", "[" * 10**5, '{"model_type": "vit"}'])
def test_other_files_are_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelRefused, match="is not loaded"):
        load_backbone(folder)


def test_towers_are_of_their_pair(folder: Path, tmp_path: Path) -> None:
    plain = make_request(folder).source.tower  # type: ignore[union-attr]
    change(folder, vision_encoder=["a"])  # of a class without towers
    assert make_request(folder).source.tower == {**plain, "vision_encoder": ["a"]}  # type: ignore[union-attr]
    folder = save(clip(), tmp_path / "clip")
    file = folder / "config.json"
    record = json.loads(file.read_text())
    inner = record["config"].pop("vision_encoder")
    file.write_text(json.dumps(record))
    with pytest.raises(ModelRefused, match="has no vision_encoder"):
        load_backbone(folder, cache_dir=tmp_path)
    for other in ("text", record["config"]["text_encoder"], {**inner, "module": "os"}):
        record["config"]["vision_encoder"] = other
        file.write_text(json.dumps(record))
        with pytest.raises(ModelRefused, match=r"vision_encoder of its|names 'os"):
            load_backbone(folder, cache_dir=tmp_path)


def test_links_and_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.weights.h5"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelRefused, match="of its weights"):
        load_backbone(folder, cache_dir=tmp_path)
    weights.unlink()
    with pytest.raises(WeightsUnavailable, match=r"has no model\.weights\.h5"):
        load_backbone(folder, cache_dir=tmp_path)
    (folder / "model.weights.json").write_text("{}")
    with pytest.raises(WeightsUnavailable, match="split over several files"):
        load_backbone(folder, cache_dir=tmp_path)
    (tmp_path / "w.h5").write_bytes(data)
    weights.symlink_to(tmp_path / "w.h5")
    with pytest.raises(ModelRefused, match="a link, which is not followed"):
        load_backbone(folder, cache_dir=tmp_path)
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(ModelRefused, match="not a regular file"):
        load_backbone(folder, cache_dir=tmp_path)


def test_a_nan_is_no_weight(tmp_path: Path) -> None:
    model = vit()
    model.weights[0].assign(np.full(model.weights[0].shape, np.nan))
    with pytest.raises(WeightsMismatch, match="are NaN"):
        load_backbone(save(model, tmp_path / "nan"), cache_dir=tmp_path)


def converted(**config: Any) -> Any:
    found = read_converter({"class_name": "ViTImageConverter", "config": config})
    return str(found.rule), found.size


def test_photos_are_resized_as_the_converter_does(folder: Path, tmp_path: Path) -> None:
    file = folder / "image_converter.json"
    record = json.loads(file.read_text())
    found = []
    for crop, pad in ((True, False), (False, True), (False, False)):
        record["config"] |= {"crop_to_aspect_ratio": crop, "pad_to_aspect_ratio": pad}
        file.write_text(json.dumps(record))
        found.append(make_request(folder).resize)
    assert found == ["crop", "pad", "stretch"]
    assert make_request(folder, BackboneOptions(resize="pad")).resize == "pad"
    assert load_backbone(folder, resize="pad", cache_dir=tmp_path).spec.resize == "pad-bilinear"


def test_converters_are_normalizations() -> None:
    assert converted() == ("none", None)
    assert converted(scale=1 / 127.5, offset=-1, image_size=[8, 9]) == ("tf", (8, 9))
    assert converted(scale=[1 / 255], height=8, width=9) == ("unit", (8, 9))
    torch = {"mean": [0.485, 0.456, 0.406], "variance": [0.229**2, 0.224**2, 0.225**2]}
    assert converted(scale=1 / 255, **torch)[0] == "torch"
    for wrong in (
        {"scale": 0}, {"scale": 1e5}, {"scale": "large"}, {"scale": [1, 2]},
        {"offset": float("nan")}, {"image_size": 224}, {"image_size": [0, 5]},
        {"image_size": [1, 2, 3]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="of its image converter"):
            converted(**wrong)
    with pytest.raises(ValueError, match="does not describe"):
        read_converter([])
    with pytest.raises(ValueError, match="which may do other things"):
        read_converter({"class_name": "Gemma4ImageConverter", "config": {}})


def test_networks_that_compare_too_many_tokens_are_refused(tmp_path: Path) -> None:
    model = vit(image_shape=(1024, 1024, 3), patch_size=4)
    with pytest.raises(InvalidRequest, match=r"compares 65,537 tokens .* smaller image_size"):
        load_backbone(model, preprocessing="unit", cache_dir=tmp_path)


def test_a_preset_without_converter_needs_its_preprocessing(folder: Path, tmp_path: Path) -> None:
    (folder / "image_converter.json").unlink()
    with pytest.raises(InvalidRequest, match="How are images prepared"):
        load_backbone(folder, cache_dir=tmp_path)
    assert load_backbone(folder, preprocessing="tf", cache_dir=tmp_path).width == 16
