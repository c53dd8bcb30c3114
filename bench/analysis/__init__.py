"""Analysis of results: what they mean, as numbers and sentences, without any drawing.

Confidence intervals, paired tests, slices, shared traits of confused classes, differences to an
earlier run, and the summary of all. Reads what `bench.evaluation` returns and trains nothing. Used
by `bench.report`, ``python -m bench`` and users.
"""
