"""Models whose embeddings were computed elsewhere and imported: their name, source and spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._io.names import check_name
from ..errors import InvalidRequest
from .spec import IMPORTED, BackboneSpec, content_key

_WORD = "imported"
_MAX_SOURCE = 2000  # characters


@dataclass(frozen=True)
class ImportedModel:
    """The model that computed embeddings elsewhere, for `featcache.import_features`.

    Nothing can be checked about such a model, so that its name and source are all that keeps its
    embeddings apart from those of other models: the key of the store is a hash of both.

    Parameters
    ----------
    name : str
        1 to 91 letters, digits, ``_``, ``.`` and ``-``, such as ``"dinov2-vitb14"``.
    source : str
        Everything that changes an embedding: weights and their version, layer, pooling, image
        size, resizing, normalisation. Another text is another store.

    Raises
    ------
    InvalidRequest
        If the name is not valid, or the source is empty or longer than 2,000 characters.

    Examples
    --------
    >>> model = ImportedModel("dinov2-vitb14", "hub e1277af, CLS token, 224 px, bicubic")
    >>> model.spec.backbone, model.spec == ImportedModel("dinov2-vitb14", "hub main").spec
    ('imported-dinov2-vitb14', False)
    """

    name: str
    source: str

    def __post_init__(self) -> None:
        check_name(self.name, "The name of an imported model")
        check_name(f"{IMPORTED}{self.name}", "The backbone of a spec")
        if not isinstance(self.source, str) or not 0 < len(self.source.strip()) <= _MAX_SOURCE:
            raise InvalidRequest(
                "The source of an imported model must be a text of 1 to "
                f"{_MAX_SOURCE:,} characters: the version of its weights, the layer, how images "
                "are prepared. It keeps embeddings of different models apart.",
                received=self.source,
            )

    @property
    def spec(self) -> BackboneSpec:
        """The spec of the embeddings; no computed embeddings have such a one."""
        return BackboneSpec(
            backbone=f"{IMPORTED}{self.name}",
            layer=_WORD,
            weights=content_key({_WORD: 1, "name": self.name, "source": self.source}),
            pooling="none",
            image_size=(1, 1),
            resize=_WORD,
            decode_version=0,
            preprocessing=_WORD,
        )

    def metadata(self) -> dict[str, str]:
        """Return what the manifest of a store says about the model."""
        return {"backbone": self.name, "weights": self.source, "preprocessing": _WORD}

    def arguments(self) -> dict[str, Any]:
        """Return `Features.arguments`, in the form of those of computed features."""
        spec = self.spec
        return {
            "backbone": spec.backbone, "layer": _WORD, "pooling": None, "image_size": [1, 1],
            "resize": "stretch", "weights": None, "preprocessing": None,
            "precision": spec.precision, "row_dtype": spec.row_dtype,
        }  # fmt: skip
