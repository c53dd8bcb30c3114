"""Files of embeddings for other tools: NumPy, Parquet, CSV and the data sets of Hugging Face.

A format is given the rows of a data set as an `ExportedRows`, reads the embeddings in blocks, and
writes atomically. Called by `extraction`, by `Features.export`, and by `cli` for its tables.
"""
