"""`LayersBackbone`: several layers of one network, computed in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .keras_backend import import_keras, preserve_random_state
from .model import Backbone, hash_weights, symbolic_outputs
from .request import ModelRequest, Request, TableRequest
from .resolve import ResolvedBackbone, available
from .spec import BackboneSpec, content_key


class LayersBackbone(Backbone):
    """A frozen model that gives the embeddings of several layers side by side.

    Parameters
    ----------
    requests : sequence of TableRequest or of ModelRequest
        Of one network, each for another layer; see `share_a_network`.

    Attributes
    ----------
    widths : list of int
        Number of values of each layer.
    weights_hashes : list of str
        `Backbone.weights_hash` of each layer by itself.
    """

    def __init__(self, requests: Sequence[TableRequest | ModelRequest]) -> None:
        keras = import_keras()
        with preserve_random_state():
            self.name, inputs, outputs = symbolic_outputs(keras, requests)
        self.layer, self.pooling = _named([(one.layer, one.pooling) for one in outputs])
        cuts = [keras.Model(inputs, one.tensor) for one in outputs]
        self.weights_hashes = [hash_weights(cut) for cut in cuts]
        tensors = [
            one.tensor if one.tensor.dtype == "float32" else keras.ops.cast(one.tensor, "float32")
            for one in outputs
        ]
        joined = keras.layers.Concatenate()(tensors)
        self._set_model(keras, keras.Model(inputs, joined), requests[0])
        self.widths = [int(cut.output_shape[-1]) for cut in cuts]


def _named(outputs: Sequence[tuple[str, str]]) -> tuple[str, str]:
    return " + ".join(layer for layer, _ in outputs), " + ".join(pooling for _, pooling in outputs)


def share_a_network(requests: Sequence[Request]) -> bool:
    """Return whether one pass can compute several layers: of Keras models with the same weights."""
    first = requests[0]
    if not isinstance(first, (TableRequest, ModelRequest)):
        return False
    return all(request.weights == first.weights for request in requests)


def build_layers(resolved: Sequence[ResolvedBackbone]) -> LayersBackbone | None:
    """Build the network of several layers; None if it is not the one that was resolved.

    Weights may be replaced by others within a tick of the clock.
    """
    requests = [
        available(one.request) if isinstance(one.request, TableRequest) else one.request
        for one in resolved
    ]
    backbone = LayersBackbone([r for r in requests if isinstance(r, (TableRequest, ModelRequest))])
    expected = [(one.spec.weights, one.width) for one in resolved]
    found = list(zip(backbone.weights_hashes, backbone.widths, strict=True))
    return backbone if found == expected else None


def layers_spec(specs: Sequence[BackboneSpec]) -> BackboneSpec:
    """Return the spec that stands for several layers in one pass; no store has it."""
    layer, pooling = _named([(spec.layer, spec.pooling) for spec in specs])
    weights = content_key({"layers": [[spec.layer, spec.pooling, spec.weights] for spec in specs]})
    return replace(specs[0], layer=layer, pooling=pooling, weights=weights)
