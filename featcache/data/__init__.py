"""Images in any form as a `Dataset`: names, labels, columns and boxes, and where the bytes are.

`load.py` chooses by the form: folders, tables, lists of paths, URLs, archives, Parquet files,
arrays, pipelines of other libraries, and streams. Each is an `ImageSource` (`sources.py`), which
gives the id and the bytes of an image. To make a `Dataset`, no image is decoded, except by the
library that a pipeline belongs to. Ids are remembered for files (`file_index.py`), containers and
URLs. Labels are passed on only to `Features`. Used by `datasets`, `store` (for packing), `gc`,
`extraction`, `bundle` and `cli`.
"""
