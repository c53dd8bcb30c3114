"""What the words of the command line mean: backbones and fine-tuned models with options.

`bench.__main__` calls it. Values are parsed and checked here, before any work.
"""
