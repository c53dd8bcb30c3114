"""The fine-tuned contender: its network, what it reads, and resumable training.

`boundary` finds the layer between the frozen and the trained part of the backbone, `input_plan`
decides whether its outputs or decoded pixels are stored, and `inputs` reads either in training.
`training` runs the epochs, with a checkpoint after each. Used by ``python -m bench``,
`bench.tools` (training) and users; `bench.evaluation` knows it only as a `Contender`.
"""
