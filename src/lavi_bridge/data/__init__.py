"""Captioned images: where they come from, in which order, and how they become tensors."""

from lavi_bridge.data.base import BadImage, Source
from lavi_bridge.data.cache import LatentCache, Moments
from lavi_bridge.data.folder import Folder
from lavi_bridge.data.huggingface import HuggingFace
from lavi_bridge.data.mix import Mix
from lavi_bridge.data.order import Key, Order
from lavi_bridge.data.transforms import buckets, nearest_bucket, normalise, to_pixels
from lavi_bridge.data.tsv import TSV
from lavi_bridge.data.webdataset import WebDataset

__all__ = [
    "TSV",
    "BadImage",
    "Folder",
    "HuggingFace",
    "Key",
    "LatentCache",
    "Mix",
    "Moments",
    "Order",
    "Source",
    "WebDataset",
    "buckets",
    "nearest_bucket",
    "normalise",
    "to_pixels",
]
