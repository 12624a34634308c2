"""Noise processes: how a vision model was taught to denoise."""
