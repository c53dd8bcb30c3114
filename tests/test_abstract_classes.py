"""A class with abstract methods cannot be made: else a missing method is noticed at its call."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import featcache
import heads


def _classes() -> Iterator[type]:
    for package in (featcache, heads):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                names = vars(importlib.import_module(module.name)).values()
                yield from (kind for kind in names if inspect.isclass(kind))


def test_classes_with_abstract_methods_are_abstract() -> None:
    with_abstract = {
        kind
        for kind in _classes()
        if kind.__module__.split(".")[0] in ("featcache", "heads")
        and any(getattr(part, "__isabstractmethod__", False) for part in vars(kind).values())
    }
    assert {kind.__name__ for kind in with_abstract} >= {"Head", "LinearHead", "CheckedFile"}
    assert [kind for kind in with_abstract if not inspect.isabstract(kind)] == []
