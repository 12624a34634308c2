"""How PyTorch's threads wait for each other on a CPU: asleep.

OpenMP's threads spin while they wait, which costs nothing on a quiet machine and a great deal on a
busy one: a thread that spins holds the core that the thread it waits for would need. The settings
are read when torch is imported, so this must come before.
"""

from __future__ import annotations

import os

SETTING = {"OMP_WAIT_POLICY": "PASSIVE"}
OTHERS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What else says how long threads spin: GNU's and LLVM's (Intel's) own settings."""


def sleep_while_waiting() -> None:
    """Let the threads of this process, and of those that it starts, sleep while they wait.

    A user's own setting wins. Where torch is already imported it takes effect in processes that
    are started from here on, and not in this one.
    """
    if not any(name in os.environ for name in (*SETTING, *OTHERS)):
        os.environ.update(SETTING)
