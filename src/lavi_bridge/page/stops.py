"""The flags that end what a visitor has going on."""

from __future__ import annotations

import threading


class Stops:
    """One flag for whatever a visitor has begun and not ended yet, in the order of beginning."""

    def __init__(self) -> None:
        self._flags: dict[str, list[threading.Event]] = {}
        self._lock = threading.Lock()

    def new(self, visitor: str) -> threading.Event:
        """A flag for something new, which ends what went on before it."""
        flag = threading.Event()
        with self._lock:
            self._stop(visitor)
            self._flags.setdefault(visitor, []).append(flag)
        return flag

    def done(self, visitor: str, flag: threading.Event) -> None:
        """Forget a flag."""
        with self._lock:
            flags = self._flags.get(visitor, [])
            if flag in flags:
                flags.remove(flag)
            if not flags:
                self._flags.pop(visitor, None)

    def stop(self, visitor: str) -> None:
        """Set all flags of a visitor."""
        with self._lock:
            self._stop(visitor)

    def is_newest(self, visitor: str, flag: threading.Event) -> bool:
        """Whether the visitor has begun nothing since."""
        with self._lock:
            return self._flags.get(visitor, [])[-1:] == [flag]

    def _stop(self, visitor: str) -> None:
        for flag in self._flags.get(visitor, ()):
            flag.set()
