"""Boxes around the objects in images: read from columns, and widened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from .._io.choices import check_choice
from ..errors import DatasetError, InvalidRequest
from ..images.image_file import Box
from ..images.resize_rule import format_box
from .dataset import Dataset

COLUMNS = ("left", "top", "right", "bottom")
Crop = Literal["whole", "box"]
CROPS: tuple[Crop, ...] = get_args(Crop)


def cropped(dataset: Dataset, crop: Crop | None, margin: float = 0.0) -> Dataset:
    """Return a data set whose examples are the boxes in its columns, or whole images.

    Parameters
    ----------
    dataset : Dataset
        For ``crop="box"``, with the attributes ``left``, ``top``, ``right`` and ``bottom``:
        numbers, edges in pixels of the upright photo.
    crop : {"box", "whole"} or None
        None leaves the data set as it is.
    margin : float
        Fraction of the box's width and height, 0 to 1, by which to widen it on each side. Parts
        outside the image are clipped.

    Raises
    ------
    InvalidRequest
        For another value of `crop` or `margin`, for a margin without ``crop="box"``, or if the
        data set has boxes already.
    DatasetError
        If a column is missing, or a row is not a valid box.

    Examples
    --------
    >>> table = {"left": [10], "top": [20], "right": [30], "bottom": [60]}
    >>> dogs = Dataset(["a.jpg"], attributes=table)
    >>> cropped(dogs, "box").boxes, cropped(dogs, "box", 0.1).boxes
    ([(10, 20, 30, 60)], [(8, 16, 32, 64)])
    """
    if crop is not None:
        check_choice("crop", crop, CROPS)
    if not 0 <= margin <= 1:
        raise InvalidRequest(
            f"margin={margin!r} must be a fraction of the box from 0 to 1.", received=margin
        )
    if margin and crop != "box":
        raise InvalidRequest(
            f"margin={margin:g} widens boxes, but crop={crop!r} uses none. Pass crop='box' "
            "(--crop box) as well, or leave the margin out.",
            received=margin,
        )
    if crop != "box":
        return dataset
    if dataset.boxes is not None:
        raise InvalidRequest("The data set is cropped already; leave crop= out.", received=crop)
    missing = [name for name in COLUMNS if name not in dataset.attributes]
    if missing:
        raise DatasetError(
            f"crop='box' needs the columns {', '.join(COLUMNS)} (edges in pixels); "
            f"{dataset.name!r} has no {', '.join(missing)}.",
            expected=missing,
        )
    others = {k: v for k, v in dataset.attributes.items() if k not in COLUMNS}
    boxes = [widened(box, margin) for box in _read_boxes(dataset.attributes, dataset.paths)]
    return replace(dataset, boxes=boxes, crop=format_box(margin), attributes=others)


def widened(box: Box, margin: float) -> Box:
    """Return a box widened on each side by a fraction of its size, rounded to pixels."""
    left, top, right, bottom = box
    across, down = round((right - left) * margin), round((bottom - top) * margin)
    return left - across, top - down, right + across, bottom + down


def _read_boxes(columns: Mapping[str, Iterable[Any]], paths: Sequence[str]) -> list[Box]:
    boxes: list[Box] = []
    for row, edges in enumerate(zip(*(list(columns[name]) for name in COLUMNS), strict=True)):
        try:
            left, top, right, bottom = (round(float(edge)) for edge in edges)
        except (TypeError, ValueError, OverflowError) as error:
            raise _invalid_box(row, edges, paths) from error
        if left >= right or top >= bottom:
            raise _invalid_box(row, edges, paths)
        boxes.append((left, top, right, bottom))
    return boxes


def _invalid_box(row: int, edges: Sequence[Any], paths: Sequence[str]) -> DatasetError:
    return DatasetError(
        f"Row {row + 1} ({paths[row]}): left, top, right, bottom = "
        f"{', '.join(map(str, edges))} is not a box; expected four numbers with left < right and "
        "top < bottom.",
        row=row + 1,
        received=edges,
    )
