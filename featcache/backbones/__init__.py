"""Frozen networks: the table of backbones, weights, preprocessing, and the cache key.

From what a caller asks for to a `Backbone`, cut at a layer, and the `BackboneSpec` that names
its features. Models from elsewhere are checked here before Keras opens them. Called by
`engines`, `store` (for the spec alone) and `extraction`; it never imports a store.
"""
