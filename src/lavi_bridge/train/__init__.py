"""Training: the loop over accelerate."""
