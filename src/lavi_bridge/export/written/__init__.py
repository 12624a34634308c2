"""Sources that are copied into exported folders, where they run without this package.

What they import of it is written out in their place: see `export/source.py`.
"""
