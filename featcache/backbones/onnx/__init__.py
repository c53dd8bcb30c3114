"""Networks of any framework, exported to ONNX, as backbones.

`file` reads a file, `graph` cuts its graph at a layer, `network` hashes what was cut, `rebuild`
writes it again, and `backbone` runs that with ONNX Runtime. `library` alone imports `onnx` and ONNX
Runtime. Used by `featcache.backbones` and `featcache.engines`.
"""
