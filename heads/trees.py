"""Convert the trees of LightGBM to plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InvalidRequest

_LEFT, _RIGHT = 2, 3


def tree_arrays(booster: Any, rounds: int) -> dict[str, NDArray[Any]]:
    """Return the trees of a booster as arrays of nodes, parents before their children.

    Parameters
    ----------
    booster : lightgbm.Booster
        With numerical splits only.
    rounds : int
        Number of boosting rounds to convert.

    Returns
    -------
    dict of str to ndarray
        ``root`` (trees,) int32: index of the first node of each tree. One entry per node:
        ``column``, ``left``, ``right`` int32, ``threshold``, ``value`` float64; a leaf has
        ``left`` -1. See `featcache.ClassifierStep`.

    Raises
    ------
    InvalidRequest
        If a split is not of the kind "at most a threshold".
    """
    nodes: list[list[Any]] = []
    roots = []
    for tree in booster.dump_model(num_iteration=rounds)["tree_info"]:
        roots.append(len(nodes))
        # A stack instead of recursion: a tree may be deeper than Python's recursion limit.
        waiting: list[tuple[dict[str, Any], int, int]] = [(tree["tree_structure"], -1, _LEFT)]
        while waiting:
            node, parent, side = waiting.pop()
            if parent >= 0:
                nodes[parent][side] = len(nodes)
            if "split_feature" not in node:
                nodes.append([0, 0.0, -1, -1, float(node["leaf_value"])])
                continue
            if node["decision_type"] != "<=":
                raise InvalidRequest(f"A tree splits by {node['decision_type']!r}, not by '<='.")
            number = len(nodes)
            nodes.append([int(node["split_feature"]), float(node["threshold"]), 0, 0, 0.0])
            waiting.append((node["right_child"], number, _RIGHT))
            waiting.append((node["left_child"], number, _LEFT))
    column, threshold, left, right, value = zip(*nodes, strict=True)
    return {
        "root": np.array(roots, np.int32),
        "column": np.array(column, np.int32),
        "threshold": np.array(threshold, np.float64),
        "left": np.array(left, np.int32),
        "right": np.array(right, np.int32),
        "value": np.array(value, np.float64),
    }
