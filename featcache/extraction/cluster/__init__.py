"""Extraction by the workers of a Dask cluster: the plan of the client, cut into tasks.

`driver` runs in the process of the caller, `worker` in those of the workers; `tasks` has the
values that travel between them, and `library` alone imports Dask. `extraction.extract` calls
`driver` if it is given a client.
"""
