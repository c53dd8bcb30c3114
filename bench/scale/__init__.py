"""A model of extraction on a cluster: how long, how large, how much, and what limits it.

`constants` holds what was measured or assumed, `scenario` what is asked, `model` answers it;
`calibrate` measures the constants on this machine, `charts` and `tables` show answers.
``python -m bench.scale`` is the command.
"""
