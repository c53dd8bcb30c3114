"""Backbones and fine-tuned models with options, by the words of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.command.backbones import BACKBONE_OPTIONS, SharedOptions, parse_backbones
from bench.command.entries import split_joined
from bench.command.finetune import FINETUNE_OPTIONS, parse_all_fine_tuned, parse_fine_tuned
from conftest import make_tiny_model
from featcache.errors import InvalidRequest, UnknownBackbone, WeightsUnavailable


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "me@work" / "mine.keras"
    path.parent.mkdir()
    make_tiny_model().save(path)
    return path


def run(photos: Path, out: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    command = [
        "--data", str(photos), "--heads", "logistic", "--weights", "random", "--image-size", "32",
        "--out", str(out), "--quiet", *words,
    ]  # fmt: skip
    status = main(command)
    file = out / "results.json"
    return status, json.loads(file.read_text())["contenders"] if file.exists() else []


def test_entries_that_differ_in_options_alone_are_contenders_of_their_own(
    photos: Path, tmp_path: Path
) -> None:
    status, found = run(
        photos, tmp_path / "out", "--pooling", "max", "--backbones", "mobilenet, MobileNet",
        "--backbones", "mobilenet@image_size=40x48,pooling=flat,resize=pad,weights=random:2",
    )  # fmt: skip
    assert status == 0
    assert [c["contender"] for c in found] == [
        "mobilenet + logistic",
        "mobilenet@image_size=40x48,pooling=flat,resize=pad,weights=random:2 + logistic",
    ]
    assert [c["facts"]["weights"] for c in found] == ["random (seed 0)", "random (seed 2)"]


def test_a_keras_file_is_a_backbone(photos: Path, own: Path, tmp_path: Path) -> None:
    status, found = run(
        photos, tmp_path / "out", "--image-size", "16", "--backbones", str(own), "--backbones",
        f"{own}@layer=conv", "--baselines", "--finetune", f"{own}:conv@epochs=1,views=2",
    )  # fmt: skip
    assert status == 0
    assert [c["contender"] for c in found] == [
        "mine + logistic", "mine@layer=conv + logistic", "colour histogram + logistic",
        "mine:conv@epochs=1,views=2 fine-tuned",
    ]  # fmt: skip


def test_two_files_of_one_name_are_two_contenders(own: Path, tmp_path: Path) -> None:
    other = tmp_path / "mine.keras"
    make_tiny_model(1).save(other)
    shared = SharedOptions()
    choices = parse_backbones([f"{own},{other}", f"{own}@layer=conv"], shared)
    assert [c.name for c in choices] == [str(own), str(other), "mine@layer=conv"]
    tuned = parse_all_fine_tuned([f"{own}:1", f"{other}:1", f"{own}:1"], shared, {})
    assert list(tuned) == ["mine:1 fine-tuned", f"{other}:1 fine-tuned"]


def test_a_plus_inside_the_path_of_a_file_does_not_join_backbones(tmp_path: Path) -> None:
    weights, model = tmp_path / "a+b" / "c+d.h5", tmp_path / "a+b" / "e+f.keras"
    weights.parent.mkdir()
    weights.touch()
    model.touch()
    one = f"vgg16@weights={weights},layer=fc1"
    assert split_joined(one) == [one]
    assert split_joined(f"{one} + resnet50") == [one, "resnet50"]
    assert split_joined(f"resnet50+{model}+{one}") == ["resnet50", str(model), one]
    assert split_joined(f"{model}@layer=conv+{model}") == [f"{model}@layer=conv", str(model)]
    assert split_joined("vgg16+") == ["vgg16", ""]


def test_own_options_come_before_those_of_all(own: Path) -> None:
    shared = SharedOptions({"weights": "random", "layer": None, "precision": "bfloat16"})
    one, two, mine = parse_backbones(["vgg16,vgg19", f"{own}@precision=float32"], shared)
    assert one.options == two.options == {"weights": "random", "precision": "bfloat16"}
    assert mine.options == {"precision": "float32"}  # it has its own weights
    (sample,) = parse_backbones(["vgg16@weights=auto"], SharedOptions(sample=True))
    assert sample.options == {"weights": "imagenet-or-random"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vgg16@size=224", "there is no option 'size'; choose from layer, pooling, image_size"),
        ("vgg16@image_size=big", "vgg16@image_size=big: image_size='big' is not a size"),
        ("vgg16@image_size=0", "image_size=0 is out of range"),
        ("vgg16@pooling=mean", "pooling='mean' is not known; choose one of avg, max, flat"),
        ("vgg16@engine=gpu", "choose one of auto, openvino, keras, tensorflow"),
        ("vgg16@layer=", "layer='' is empty"),
        ("vgg16@pooling=avg,pooling=max", "pooling is given twice"),
        ("vgg16@image_size=224,vgg19", "'vgg19' is not of the form option=value"),
        ("vgg19,vgg16@image_size=224", "--backbones vgg19 --backbones vgg16@image_size=224"),
        ("vgg16@224", "options follow @ as option=value"),
    ],
)
def test_a_wrong_option_names_the_accepted_ones(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_backbones([text], SharedOptions())
    assert message in str(error.value)


def test_a_wrong_backbone_or_file_is_found_before_any_work(own: Path, tmp_path: Path) -> None:
    import keras

    shared = SharedOptions()
    with pytest.raises(UnknownBackbone, match="Did you mean 'vgg16'"):
        parse_backbones(["vg16@image_size=64"], shared)
    with pytest.raises(WeightsUnavailable, match="no weights file"):
        parse_backbones([f"vgg16@weights={tmp_path}/none.h5"], shared)
    with pytest.raises(InvalidRequest, match="omit weights="):
        parse_backbones([f"{own}@weights=random"], shared)
    raw = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    raw.save(tmp_path / "raw.keras")
    with pytest.raises(InvalidRequest, match=r"raw\.keras: How are images prepared"):
        parse_backbones([str(tmp_path / "raw.keras")], shared)
    (choice,) = parse_backbones([f"{tmp_path}/raw.keras@preprocessing=tf"], shared)
    assert choice.name == "raw@preprocessing=tf"


def test_a_wrong_layer_is_found_before_other_contenders_are_computed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backbones", "mobilenet", "--backbones", "mobilenet@layer=conv_99"]
    assert run(photos, tmp_path / "out", *words) == (2, [])
    assert "mobilenet has no layer 'conv_99'" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "stores").exists()


def test_arguments_of_fine_tuned_follow_its_part() -> None:
    text = (
        "mobilenet_v2:0.3@epochs=10,views=3,lr_schedule=cosine,warmup=1,learning_rate=1e-3,"
        "label_smoothing=0.1,weights=random:1,units=64x32,augmentation=default,max_cache=2G,"
        "initial_head=none,image_size=64,batch_size=8"
    )
    shared = SharedOptions({"weights": "random", "precision": "bfloat16", "engine": "keras"})
    name, contender = parse_fine_tuned(text, shared, {"epochs": 3, "cache_dir": None})
    assert name == f"{text} fine-tuned"
    schedule = contender.schedule
    assert (schedule.epochs, schedule.lr_schedule, schedule.warmup) == (10, "cosine", 1.0)
    assert (schedule.learning_rate, schedule.batch_size) == (1e-3, 8)
    assert (contender.unfreeze, contender.views.count, contender.top.units) == (0.3, 3, (64, 32))
    assert (contender.label_smoothing, contender.max_cache) == (0.1, 2 * 2**30)
    assert contender.initial_head is None


def test_a_part_is_a_fraction_a_number_of_layers_or_a_layer() -> None:
    parts = {"vgg16:0.3": 0.3, "vgg16:2": 2, "vgg16:block5_conv1": "block5_conv1", "vgg16": 0.4}
    for text, part in parts.items():
        _, contender = parse_fine_tuned(text, SharedOptions(), {})
        assert contender.unfreeze == part
        assert type(contender.unfreeze) is type(part)


def test_a_preset_takes_options() -> None:
    shared = SharedOptions({"weights": "random"})
    name, contender = parse_fine_tuned("resnet50-40@epochs=2,units=none", shared, {})
    assert name == "resnet50-40@epochs=2,units=none"
    assert (contender.unfreeze, contender.schedule.epochs) == ("conv5_block2", 2)
    assert contender.top.units == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vgg16:0.3@epoch=2", "there is no option 'epoch'; choose from epochs, views"),
        ("vgg16:0.3@epochs=0", "epochs='0' must be a whole number from 1"),
        ("vgg16:0.3@epochs=1.5", "epochs='1.5' must be a whole number from 1"),
        ("vgg16:0.3@learning_rate=0", "learning_rate='0' must be a number above 0"),
        ("vgg16:0.3@learning_rate=nan", "learning_rate='nan' must be a number above 0"),
        ("vgg16:0.3@layer_decay=2", "layer_decay='2' must be a number from 0 to 1"),
        (
            "vgg16:0.3@lr_schedule=step",
            "lr_schedule='step' is not known; choose one of plateau, cosine",
        ),
        ("vgg16:0.3@units=big", "units='big' is no list of widths"),
        ("vgg16:0.3@max_cache=lots", "max_cache='lots' is not a size; give one such as 20G"),
        ("vgg16:0.3@precision=bfloat16", "there is no option 'precision'"),
        ("vgg16:1.5", "vgg16:1.5: "),
        ("vgg16:0.3@views=5000", "vgg16:0.3@views=5000: "),
        ("resnet50-40@image_size=5000", "resnet50-40@image_size=5000: image_size=5000 is out of"),
    ],
)
def test_a_wrong_argument_of_fine_tuned_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_fine_tuned(text, SharedOptions(), {})
    assert message in str(error.value)


def test_options_are_arguments_of_the_api() -> None:
    import inspect

    import bench
    import featcache

    assert set(BACKBONE_OPTIONS) <= set(inspect.signature(featcache.extract).parameters)
    accepted = set(inspect.signature(bench.FineTuned).parameters) | set(BACKBONE_OPTIONS)
    assert set(FINETUNE_OPTIONS) <= accepted
    left_out = {"backbone", "unfreeze", "cache_dir", "options", "precision", "row_dtype", "engine"}
    assert accepted - set(FINETUNE_OPTIONS) == left_out


def test_a_wrong_option_of_all_backbones_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--image-size", "big"], ["--epochs", "0"], ["--resize", "zoom"]):
        with pytest.raises(SystemExit):
            main(words)
    error = capsys.readouterr().err
    assert "'big' is not a size; give 192" in error
    assert "'0' must be a whole number from 1" in error


@pytest.mark.parametrize(
    "words", [["--path-column", "a"], ["--label-column", "a"], ["--crop", "box"]]
)
def test_options_of_tables_do_not_go_with_drawn_dogs(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--drawn", "2x4", *words]) == 2
    assert f"{words[0]} goes with --data" in capsys.readouterr().err


def test_the_help_names_all_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "xception@image_size=224" in text
    assert "mine.keras@preprocessing=tf" in text
    assert all(name in text for name in [*BACKBONE_OPTIONS, *FINETUNE_OPTIONS])
