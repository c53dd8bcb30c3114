"""Errors carry what their classes declare, across processes as well."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields

import pytest

from featcache import errors
from featcache.errors import FeatcacheError, InvalidRequest, UnknownBackbone

ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, FeatcacheError)
]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_keep_their_values_when_they_are_pickled_or_copied(
    kind: type[FeatcacheError],
) -> None:
    values = {field.name: f"a {field.name}" for field in fields(kind)}
    error = kind(**values)
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(same) is kind
        assert vars(same) == vars(error) == values
        assert str(same) == "a message"
        assert same.args == ("a message",)


def test_values_that_a_class_does_not_declare_are_refused() -> None:
    assert UnknownBackbone("no", received="vgg91", near=["vgg19"]).near == ["vgg19"]
    with pytest.raises(TypeError, match="near"):
        InvalidRequest("no", near=["vgg19"])  # type: ignore[call-arg]
