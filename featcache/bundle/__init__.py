"""A trained head with its backbone, in one file that predicts anywhere.

A head becomes plain arrays (`Classifier`), so that neither pickle nor its library is needed to
read it. Called by `cli` and users.
"""
