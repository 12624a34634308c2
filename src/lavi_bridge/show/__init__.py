"""What is shown to people: pictures, curves, lines."""
