"""Models under comparison: the interface, heads on stored features, and a colour baseline.

`bench.evaluation` runs them; `bench.finetune` adds one more.
"""
