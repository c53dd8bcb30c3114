"""What describes images, as a `Dataset`: folders, tables, lists, labels, columns and boxes.

Nothing is decoded here, and labels go no further than `Features`. It also holds the file index,
which remembers the content id of each file. Called by `datasets`, `store` (for packing), `gc`
and `extraction`.
"""
