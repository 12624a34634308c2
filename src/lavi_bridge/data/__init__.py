"""Captioned images: where they come from, and how they become training tensors."""

from lavi_bridge.data.sources import TSV, BadImage, Folder
from lavi_bridge.data.transforms import to_pixels

__all__ = ["TSV", "BadImage", "Folder", "to_pixels"]
