"""Looking inside a network or a fitted site: where in the image, which features, which frequencies."""
