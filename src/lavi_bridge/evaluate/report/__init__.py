"""What an evaluation found, for people."""
