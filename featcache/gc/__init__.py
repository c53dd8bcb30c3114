"""Garbage collection: removal of stores by age or size, and of rows whose images are gone.

`collect` decides what is removed and reports what it keeps, with reasons; `store` does the
removal. Used by `cli`.
"""
