"""Execute the notebooks of docs/notebooks again, in place: ``python -m bench.tools.notebooks``.

Each runs in a temporary folder with a cache of its own, so that what it shows is a first run. Needs
the packages nbclient and ipykernel.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
_SECONDS_PER_CELL = 300
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TQDM_DISABLE": "1"}


def execute(path: Path) -> Any:
    """Return an executed notebook.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises an error.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory(prefix="featcache-") as folder:
        environment = {**os.environ, **_ENVIRONMENT, "FEATCACHE_CACHE": f"{folder}/cache"}
        client = NotebookClient(
            notebook,
            timeout=_SECONDS_PER_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=environment)
        _clean(notebook, folder)
    return notebook


def _clean(notebook: Any, folder: str) -> None:
    """Remove what differs from run to run: logs, times of execution, and the folder."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                output["text"] = output["text"].replace(f"{folder}/", "")
            data = output.get("data", {})
            for kind, text in data.items():
                data[kind] = text.replace(f"{folder}/", "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute the notebooks that are named, or all, and write their outputs."""
    import nbformat

    named = [Path(name) for name in (sys.argv[1:] if arguments is None else arguments)]
    for path in named or sorted(FOLDER.glob("*.ipynb")):
        started = time.perf_counter()
        nbformat.write(execute(path), path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
