"""Opening of HEIC and HEIF images with pillow-heif (the extra ``heif``)."""

from __future__ import annotations

import io

from PIL import Image

from . import formats


def open_heif(data: bytes) -> Image.Image:
    """Open the primary image of a HEIC file, without decoding it.

    The decoder applies the file's own rotation. More than 8 bits are scaled to 8.

    Raises
    ------
    BadImage
        Without pillow-heif.
    """
    formats.require("pillow_heif", "a HEIC photo")
    from pillow_heif import HeifImageFile

    image: Image.Image = HeifImageFile(io.BytesIO(data))
    return image
