"""The records of a run in one file beside its page: settings, searches, scores, losses by step."""

from __future__ import annotations

import zipfile
from pathlib import Path

from lavi_bridge.files.atomic import new_file
from lavi_bridge.reproduce.settings import Places

NAME = "records.zip"


def pack(places: Places, target: Path) -> None:
    """Write what a page is made from and the logs of its runs, of all jobs that are done.

    Bridges and pictures stay where they are. The same records give the same bytes.
    """
    results = [*places.out.glob("rows/*/seed-*/result.json")]
    logs = [path.parent / "run" / "metrics.jsonl" for path in results]
    found = [places.settings, *places.out.glob("rows/*/search.json"), *results, *logs]
    with new_file(target) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for path in sorted(path for path in found if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(places.out).as_posix())
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
