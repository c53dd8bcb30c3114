"""What results mean: confidence intervals, paired tests, slices, and the summary of all."""
