"""Names to builders: one file and one decorator add a denoiser, a sampler, a metric, ..."""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gapzoo.core.errors import GapzooError, nearest

T = TypeVar("T", bound=Callable[..., Any])


class Registry:
    """Maps a name to a class or function that builds something of one kind.

    The first look-up imports every module of ``package``, so a file that is merely put there,
    with its decorator, is found.

    >>> samplers = Registry("sampler", "gapzoo.diffusion.samplers")
    >>> samplers.build("heun", steps=16)  # doctest: +SKIP
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._entries: dict[str, Callable[..., Any]] = {}
        self._imported = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: file a class or function under ``name``. A name is given once."""

        def add(entry: T) -> T:
            if self._entries.get(name, entry) is not entry:
                raise GapzooError(f"{self.kind} '{name}' is registered twice; rename one of them")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> Callable[..., Any]:
        self._import()
        if name not in self._entries:
            raise GapzooError(f"no {self.kind} '{name}'; {nearest(name, self._entries)}")
        return self._entries[name]

    def build(self, name: str, **kwargs: Any) -> Any:
        """Build the entry called ``name``; unknown arguments are refused by name."""
        try:
            return self[name](**kwargs)
        except TypeError as error:
            raise GapzooError(f"{self.kind} '{name}': {error}") from error

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell-style pattern."""
        self._import()
        return sorted(fnmatch.filter(self._entries, pattern))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: str) -> bool:
        self._import()
        return name in self._entries

    def _import(self) -> None:
        if self._imported:
            return
        self._imported = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
