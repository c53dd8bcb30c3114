"""Frozen networks: the table of backbones, weights, preprocessing, and the cache key.

Turns a request into a `Backbone`, cut at a layer, and the `BackboneSpec` that identifies its
features. Untrusted models are checked here before Keras opens them. Used by `engines`, `store`
(only for the spec) and `extraction`; never imports a store.
"""
