"""One backbone of a bundle: the arguments that give its features, checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._io.wording import format_count
from ..backbones.keras_types import BackboneLike
from ..backbones.model_file import is_model_file
from ..backbones.request import BackboneOptions, Request, make_request
from ..backbones.resolve import apply_request
from ..backbones.spec import BackboneSpec, differing
from ..backbones.weights import names_weights_file
from ..errors import BundleMismatch, InvalidRequest
from ..images.resize_rule import WHOLE, format_resize, parse_resize

_BACKBONE_ARGUMENTS = (
    "layer", "pooling", "image_size", "resize", "weights", "precision", "row_dtype"
)  # fmt: skip
_GIVEN = ("backbone", "weights", "preprocessing")
Asked = tuple[Any, dict[str, Any], Request]


@dataclass(frozen=True)
class BundlePart:
    """One backbone of a bundle.

    Attributes
    ----------
    spec : BackboneSpec
        Spec of the training features; features of another key are refused.
    arguments : mapping of str to Any
        Arguments of `featcache.extract` that give features of that key.
    """

    spec: BackboneSpec
    arguments: Mapping[str, Any]

    @property
    def file_options(self) -> tuple[str, ...]:
        """Options of ``featcache predict`` for the model or weights file, if one is needed."""
        if self.spec.is_imported:
            return ()
        for name, is_file in (("backbone", is_model_file), ("weights", names_weights_file)):
            if is_file(self.arguments[name]):
                return f"--{name}", str(self.arguments[name])
        return ()

    def needs(self, name: str) -> bool:
        """Return whether an argument of `Bundle.predict` has to be given for this part."""
        if name == "preprocessing":
            return self.arguments["preprocessing"] is None
        own = self.spec.is_own_model or is_model_file(self.arguments["backbone"])
        if name == "backbone":
            return own
        return not own and names_weights_file(self.arguments["weights"])

    def source(self, name: str) -> tuple[str, str]:
        """Return what is equal for parts that take the same value of an argument."""
        which = self.spec.preprocessing if name == "preprocessing" else self.arguments[name]
        return self.spec.backbone, str(which)

    def check_spec(self, spec: BackboneSpec) -> None:
        """Raise `BundleMismatch` unless features of a spec are of the part's key."""
        changed = differing(_uncropped(self.spec), _uncropped(spec))
        if changed:
            raise BundleMismatch(
                f"The features (key {spec.key[:16]}) differ from those that the bundle "
                f"was trained on (key {self.spec.key[:16]}) in {', '.join(changed)}, so its "
                "predictions would be wrong. Extract them with the same weights and settings.",
                differing=changed,
                stored=self.spec,
                requested=spec,
            )

    def extract_arguments(
        self, backbone: Any, options: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Return backbone and arguments for `extract`; refuse paths that the bundle names.

        Otherwise a bundle from elsewhere could choose which files of this machine are opened.
        """
        if self.spec.is_imported:
            raise BundleMismatch(
                f"The bundle was made from imported embeddings ({self.spec.backbone}), which "
                "featcache cannot compute for other photos. Import those of the photos too, and "
                "pass the features to predict_proba().",
                received=self.spec.backbone,
            )
        # Older bundles of user-defined models do not name the layer; it was the output.
        arguments = {**self.arguments, "layer": self.spec.layer, **options}
        name = arguments.pop("backbone")
        if backbone is not None:
            arguments.pop("weights", None)
            return backbone, arguments
        if self.needs("backbone"):
            raise BundleMismatch(
                f"The bundle was made with a user-defined model ({name}), which it does not "
                "contain: pass that model or preset, or its .keras or .onnx file, as backbone= "
                "(--backbone).",
                received=name,
            )
        weights = arguments["weights"]
        if "weights" not in options and names_weights_file(weights):
            raise BundleMismatch(
                f"The bundle was made with a weights file ({weights}), which it does not contain: "
                "pass that file as weights= (--weights).",
                received=weights,
            )
        return name, arguments

    def request(self, backbone: Any, arguments: Mapping[str, Any]) -> Request:
        """Return the request for the backbone, by arguments of `extract_arguments`.

        Raises
        ------
        BundleMismatch
            If it cannot give features of the part's key, whatever its weights are.
        """
        given = {name: arguments[name] for name in _BACKBONE_ARGUMENTS if name in arguments}
        options = BackboneOptions(preprocessing=arguments["preprocessing"], **given)
        request = make_request(backbone, options)
        self.check_spec(apply_request(request, self.spec))
        return request


def requests_of(
    parts: Sequence[BundlePart],
    backbone: BackboneLike | Sequence[BackboneLike | None] | None,
    options: Mapping[str, Any],
) -> list[Asked]:
    """Return for each part its backbone, its arguments for `extract`, and the request.

    Parameters
    ----------
    parts : sequence of BundlePart
    backbone : as for `Bundle.predict`
        Of several parts: one for each that needs one, or for each different one of these, in
        their order, or one per part.
    options : mapping
        Further arguments of `extract`; ``weights`` and ``preprocessing`` are given like
        `backbone`, all others are for all parts.

    Raises
    ------
    InvalidRequest
        If another number of values was given.
    BundleMismatch
        If a part lacks a file that it needs, or the arguments do not give features of its key.
    """
    shared = {name: value for name, value in options.items() if name not in _GIVEN}
    given = {"backbone": backbone, **{n: options[n] for n in _GIVEN if n in options}}
    each = {name: _distributed(parts, name, value) for name, value in given.items()}
    found = []
    for number, part in enumerate(parts):
        own = {n: v[number] for n, v in each.items() if n != "backbone" and v[number] is not None}
        chosen, arguments = part.extract_arguments(each["backbone"][number], {**shared, **own})
        found.append((chosen, arguments, part.request(chosen, arguments)))
    return found


def passes_of(asked: Sequence[Asked]) -> list[tuple[Any, dict[str, Any]]]:
    """Return backbone and arguments of each extraction that gives what `requests_of` lists.

    Neighbours that differ in the layer alone are several layers of one extraction.
    """
    found: list[tuple[Any, dict[str, Any]]] = []
    for chosen, arguments, _ in asked:
        layer, others = arguments["layer"], {**arguments, "layer": None}
        if found:
            backbone, before = found[-1]
            same = backbone is chosen or (isinstance(chosen, str) and backbone == chosen)
            if same and {**before, "layer": None} == others and layer not in before["layer"]:
                before["layer"].append(layer)
                continue
        found.append((chosen, {**arguments, "layer": [layer]}))
    return found


def _distributed(parts: Sequence[BundlePart], name: str, value: Any) -> list[Any]:
    """Return the value of an argument for each part; None where it has none."""
    several = isinstance(value, (list, tuple))
    values = list(value) if several else [] if value is None else [value]
    if len(values) == len(parts):
        return values
    needing = [number for number, part in enumerate(parts) if part.needs(name)]
    sources = [parts[number].source(name) for number in needing]
    if len(values) != len(needing):
        # One for several layers of a network.
        known = dict(zip(dict.fromkeys(sources), values, strict=False))
        several_of_one = len(values) <= len(set(sources))
        values = [known.get(source) for source in sources] if several_of_one else values
    if len(values) > len(needing):
        raise InvalidRequest(
            f"The bundle has {format_count(len(parts), 'backbone')}, of which {len(needing)} "
            f"{'needs' if len(needing) == 1 else 'need'} {name}=, but {len(values)} were given; "
            "give one for each that needs one, in their order.",
            received=len(values),
        )
    found: list[Any] = [None] * len(parts)
    for number, one in zip(needing, values, strict=False):
        found[number] = one
    return found


def _uncropped(spec: BackboneSpec) -> BackboneSpec:
    """Return a spec without its crop: new photos have no annotated box."""
    rule = parse_resize(spec.resize)
    if rule is None:
        return spec
    return replace(spec, resize=format_resize(replace(rule, crop=WHOLE)))
