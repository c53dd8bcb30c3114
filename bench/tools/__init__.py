"""Programs of the maintainers: they make what the package ships."""
