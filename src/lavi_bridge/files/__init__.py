"""Files on disk and from afar: found, fetched, written whole."""
