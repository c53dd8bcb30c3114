"""The layers of a weights file are read from both structures of Keras, and from no other."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from featcache.hdf5.saved_layers import SavedLayer, saved_layers


def older_file(path: Path) -> Path:
    """Write a weights file in the older structure, with one layer of one weight."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        layer = file.create_group("conv")
        layer.attrs["weight_names"] = [b"kernel:0"]
        layer.create_dataset("kernel:0", (3, 3))
    return path


def newer_file(path: Path) -> Path:
    """Write a ``.weights.h5`` file with one layer of one weight."""
    with h5py.File(path, "w") as file:
        saved = file.create_group("layers/conv2d/vars")
        saved.create_dataset("0", (3, 3))
    return path


def test_both_structures_give_the_layer_and_its_shapes(tmp_path: Path) -> None:
    assert saved_layers(older_file(tmp_path / "a.h5")) == [SavedLayer("conv", "conv", ((3, 3),))]
    assert saved_layers(newer_file(tmp_path / "b.weights.h5")) == [
        SavedLayer("layers/conv2d", "layers/conv2d", ((3, 3),))
    ]


def test_a_member_of_another_kind_is_refused_by_its_name(tmp_path: Path) -> None:
    older, newer, model = (tmp_path / name for name in ("a.h5", "b.weights.h5", "c.h5"))
    # Where a group is expected, a dataset: both have attributes, and a dataset may have a shape.
    with h5py.File(older_file(older), "a") as file:
        del file["conv"]
        file.create_dataset("conv", (3, 3)).attrs["weight_names"] = []
    with h5py.File(newer_file(newer), "a") as file:
        del file["layers/conv2d/vars/0"]
        file.create_group("layers/conv2d/vars/0")
    with h5py.File(model, "w") as file:
        file.create_dataset("model_weights", (3, 3)).attrs["layer_names"] = []
    for path, reason in (
        (older, "'conv' is not a group"),
        (newer, "'0' is not a dataset"),
        (model, "'model_weights' is not a group"),
    ):
        with pytest.raises(ValueError, match=rf"not a weights file of Keras \({reason}\)"):
            saved_layers(path)


def test_values_beside_the_layers_are_passed_over(tmp_path: Path) -> None:
    path = newer_file(tmp_path / "a.weights.h5")
    expected = saved_layers(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/step", data=7)
    assert saved_layers(path) == expected


def test_a_list_of_names_that_keras_has_split_is_read_whole(tmp_path: Path) -> None:
    path = older_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for name in ("dense", "top"):
            layer = file.create_group(name)
            layer.attrs["weight_names0"] = [b"kernel:0"]
            layer.attrs["weight_names1"] = [b"bias:0"]
            layer.create_dataset("kernel:0", (3, 2))
            layer.create_dataset("bias:0", (2,))
        del file.attrs["layer_names"]
        for number, name in enumerate((b"conv", b"dense", b"top")):
            file.attrs[f"layer_names{number}"] = [name]
    assert saved_layers(path) == [
        SavedLayer("conv", "conv", ((3, 3),)),
        SavedLayer("dense", "dense", ((3, 2), (2,))),
        SavedLayer("top", "top", ((3, 2), (2,))),
    ]
