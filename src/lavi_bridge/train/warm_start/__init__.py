"""The start without images."""
