"""Features that are derived from stored rows: of several backbones side by side, or transformed.

The lazy arrays of such rows, their spec, and the steps that transform rows. Called by
`extraction` and `bundle`.
"""
