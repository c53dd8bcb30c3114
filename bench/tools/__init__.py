"""Programs for maintainers, which make files of the package."""
