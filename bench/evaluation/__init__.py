"""Evaluation of contenders on the same images, by the same metrics and the same cost accounting.

`evaluate` trains and scores contenders of any kind; `Results` holds predictions, metrics and costs,
and saves them. What they mean is left to `bench.analysis`. Used by `bench.analysis`,
`bench.report`, ``python -m bench`` and users.
"""
