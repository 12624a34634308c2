"""A dictionary with a decorator, whose error lists what it knows."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from lavi_bridge.errors import BridgeError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names -> classes. A class may be registered under several names."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, type[T]] = {}

    def register(self, *names: str) -> Callable[[type[T]], type[T]]:
        """Decorate a class to make it known under `names`; a name can be taken only once."""

        def add(entry: type[T]) -> type[T]:
            for name in names:
                if name in self._entries:
                    raise KeyError(f"{self.kind} '{name}' is registered twice")
                self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._entries:
            known = ", ".join(self._entries)
            hint = nearest(name, self._entries)
            raise BridgeError(f"unknown {self.kind} '{name}'; known: {known}{hint}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def families(self) -> dict[type[T], list[str]]:
        """Each registered class once, with all its names, in the order of registration."""
        found: dict[type[T], list[str]] = {}
        for name, entry in self._entries.items():
            found.setdefault(entry, []).append(name)
        return found
