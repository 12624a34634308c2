"""The records of a run in one file beside its page: settings, searches, scores, losses by step."""

from __future__ import annotations

import zipfile
from pathlib import Path

from lavi_bridge.files.atomic import new_file
from lavi_bridge.reproduce.settings import Places

NAME = "records.zip"
KEPT = (
    "settings.json",
    "rows/*/search.json",
    "rows/*/seed-*/result.json",
    "rows/*/seed-*/run/metrics.jsonl",
)
"""What a page is made from, and the logs of its runs; bridges and pictures stay where they are."""


def pack(places: Places, target: Path) -> None:
    """Write the records of a run; the same records give the same bytes."""
    found = sorted(path for pattern in KEPT for path in places.out.glob(pattern))
    with new_file(target) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for path in found:
            entry = zipfile.ZipInfo(path.relative_to(places.out).as_posix())
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
