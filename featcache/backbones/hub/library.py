"""Import of keras-hub; the only module that imports it."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from ..._io.wording import install_hint
from ...errors import MissingExtra
from ..keras_backend import import_keras, quiet_stderr

DISTRIBUTION = "keras-hub"


def import_keras_hub() -> Any:
    """Return the module `keras_hub`; raise `MissingExtra` if it cannot be imported."""
    import_keras()  # checks its settings
    try:
        with quiet_stderr():
            import keras_hub
    except ImportError as error:
        raise _missing(error) from error
    return keras_hub


def preset_table() -> dict[str, dict[str, Any]]:
    """Return the presets that keras-hub knows by name: for each name of a class, by their names.

    Nothing is downloaded.
    """
    import_keras_hub()
    from keras_hub.src.utils.preset_utils import BUILTIN_PRESETS_FOR_BACKBONE

    return {kind.__name__: dict(found) for kind, found in BUILTIN_PRESETS_FOR_BACKBONE.items()}


def fetch_file(preset: str, name: str) -> str:
    """Return the path of a file of a preset, which keras-hub downloads unless it is cached.

    Raises
    ------
    FileNotFoundError
        If the preset has no such file.
    Exception
        Of many kinds, if the download fails.
    """
    import_keras_hub()
    from keras_hub.src.utils.preset_utils import get_file

    return str(get_file(preset, name))


def hub_version() -> str:
    """Return the version of keras-hub, without importing it; raise `MissingExtra` without it."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise _missing(error) from error


def _missing(error: Exception) -> MissingExtra:
    return MissingExtra(
        f"Backbones of keras-hub need the package keras-hub ({error}): {install_hint('hub')}.",
        package=DISTRIBUTION,
    )
