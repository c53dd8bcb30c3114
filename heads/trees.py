"""LightGBM's trees as plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InvalidRequest

_LEFT, _RIGHT = 2, 3


def tree_arrays(booster: Any, rounds: int) -> dict[str, NDArray[Any]]:
    """Flatten the trees of a booster, parents before their children.

    Parameters
    ----------
    booster : lightgbm.Booster
        With numerical splits only.
    rounds : int
        Boosting rounds that count.

    Returns
    -------
    dict of str to ndarray
        ``root`` (trees,); ``column``, ``threshold``, ``left``, ``right`` and ``value``, one
        entry a node: a leaf has ``left`` -1.

    Raises
    ------
    InvalidRequest
        For a split that is not "at most a threshold".
    """
    nodes: list[list[Any]] = []
    roots = []
    for tree in booster.dump_model(num_iteration=rounds)["tree_info"]:
        roots.append(len(nodes))
        # A stack of our own: a tree of many leaves may be deeper than Python recurses.
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
