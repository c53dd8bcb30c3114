"""Images that come with the package: drawn dogs, made from a seed."""

from .dogs import drawn_dogs, sample

__all__ = ["drawn_dogs", "sample"]
