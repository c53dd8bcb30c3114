"""Names of the input and the output of networks that are written for other programs."""

IMAGES, PROBABILITIES = "images", "probabilities"
