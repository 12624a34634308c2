"""How language models are loaded."""
