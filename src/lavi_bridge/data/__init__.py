"""Captioned images: where they come from, in which order, and how they become tensors."""

from lavi_bridge.data.cache.latents import LatentCache, Moments
from lavi_bridge.data.order import Order, Sample, Visit
from lavi_bridge.data.sources.base import BadImage, Source
from lavi_bridge.data.sources.folder import Folder
from lavi_bridge.data.sources.huggingface import HuggingFace
from lavi_bridge.data.sources.mix import Mix
from lavi_bridge.data.sources.tsv import TSV
from lavi_bridge.data.sources.webdataset import WebDataset
from lavi_bridge.data.transforms import buckets, nearest_bucket, normalise, to_pixels

__all__ = [
    "TSV",
    "BadImage",
    "Folder",
    "HuggingFace",
    "LatentCache",
    "Mix",
    "Moments",
    "Order",
    "Sample",
    "Source",
    "Visit",
    "WebDataset",
    "buckets",
    "nearest_bucket",
    "normalise",
    "to_pixels",
]
