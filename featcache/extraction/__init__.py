"""The extraction: plan what is missing, compute it, and join the rows to the data set.

The one place where data, backbones, engines and stores meet. `extract` returns `Features`,
`explain` the plan alone, and `recheck` computes stored rows again. Called by `bundle`, `cli` and
users.
"""
