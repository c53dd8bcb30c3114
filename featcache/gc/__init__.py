"""What may be deleted: stores by age or size, and rows whose images are gone.

`collect` decides and says what it leaves alone, and why; the removal itself is done by `store`.
Called by `cli`.
"""
