"""Inception features for distances between sets of images."""
