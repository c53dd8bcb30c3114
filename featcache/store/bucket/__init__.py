"""Stores in an object store such as S3: read with a cache of verified shards, and added to.

`objects` reads and creates objects, `manifests` finds and extends the list of shards, `store` is a
`Store` whose shards are fetched when they are read, `writable` one to which rows are appended,
`place` what an extraction asks of either kind, `push` adds the rows that are missing. Objects are
immutable: what exists is never replaced. Used by `extraction` and `cli`.
"""
