"""What is computed once and kept: latents and features."""
