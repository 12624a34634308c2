"""Seeds that name a place in a run: the same place gets the same randomness on any machine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator


def seed_of(*key: object) -> int:
    """63 bits from anything that names a place in a run, such as (seed, epoch, index)."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded(*key: object) -> Generator:
    """A CPU generator for that place."""
    from torch import Generator

    return Generator().manual_seed(seed_of(*key))
