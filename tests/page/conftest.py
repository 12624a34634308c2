"""A page that is served by the command itself."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lavi_bridge.page.models import OWN, REAL, default_sources

SECOND = REAL if REAL in default_sources() else OWN
SOURCES = [OWN, f"second={SECOND}"]
"""The bundled image model alone, and beside it the bundled bridge where that is installed."""


@dataclass(frozen=True)
class Served:
    """A page and its process."""

    address: str
    process: int

    @property
    def resident(self) -> int:
        """Bytes of it that are in memory."""
        return int(Path(f"/proc/{self.process}/statm").read_text().split()[1]) * 4096


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """A page of two bridges."""
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "lavi_bridge", "page", *SOURCES, "--port", "0"]
    command += ["--waiting", "64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield Served(server.stdout.readline().split()[0], server.pid)
        server.terminate()


@pytest.fixture(scope="session")
def address(served: Served) -> str:
    """Where it is."""
    return served.address
