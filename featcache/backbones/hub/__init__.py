"""Image backbones of keras-hub: presets by name or in a folder, and built ones.

`families` lists the classes and what their outputs are, `config` checks the files of a preset,
`converter` reads its preprocessing, `preset` finds and reads it, and `network` builds its image
tower. `library` alone imports `keras_hub`. Used by `featcache.backbones` and `featcache.cli`.
"""
