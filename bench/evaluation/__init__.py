"""Evaluation of contenders on the same images, by the same metrics and the same cost accounting."""
