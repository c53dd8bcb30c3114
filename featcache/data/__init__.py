"""Descriptions of images as a `Dataset`: folders, tables, lists, labels, columns and boxes.

No image is decoded here, and labels are passed on only to `Features`. Also contains the file
index, a cache of the image id of each file. Used by `datasets`, `store` (for packing), `gc` and
`extraction`.
"""
