"""Training: the loop over accelerate, and the start without images."""
