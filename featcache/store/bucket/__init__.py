"""Stores in an object store such as S3: read with a cache of verified shards, and added to.

`objects` reads and creates objects, `manifests` finds and extends the list of shards, `store` is a
`Store` whose shards are fetched when they are read, `writable` one to which rows are appended,
`place` what an extraction asks of either kind, `push` adds the rows that are missing. `compaction`,
`removal`, `collection` and `verification` maintain stores, under the claims of `leases`. Objects
are immutable: what exists is never replaced. Used by `extraction`, `gc` and `cli`.
"""
