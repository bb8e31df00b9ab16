"""An archive as xarray sees data in the layout of WeatherBench 2: read as values are asked for.

As in ``ForecastStore``, levels are those of all variables together, NaN where a variable has none,
and the attribute ``channels`` names what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from gapzoo.core import Channel, Channels
from gapzoo.core.climatology import evaluate
from gapzoo.data.archive import Archive

Make = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""Fields (N, V, H, W) by their V labels, of states (N, C, H, W) of all channels, SI units."""
States = Callable[[np.ndarray, list[int] | None], np.ndarray]
"""States (N, C, H, W) at N positions along time, of some channels or of all."""
Fields = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""Fields (N, V, H, W) at N positions along time, by their V labels."""


def as_dataset(
    archive: Archive, channels: Channels | None = None, make: Make | None = None
) -> xr.Dataset:
    """States and forcings of an archive, (time, [level], latitude, longitude).

    Args:
        archive: need not be finished.
        channels: the archive's own, or what ``make`` makes.
        make: makes ``channels`` of whole states, such as fields on pressure levels.
    """
    found = _dataset(archive, channels, make, lambda at, keep: archive.read("state", at, keep))
    names = archive.forcing_channels

    def forcing(at: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        return archive.read("forcing", at, [names.index(label) for label in labels])

    more = {n: _variable(archive, forcing, [n]) for n in names if n not in found}
    return found.assign(more)


def mean_dataset(
    archive: Archive, channels: Channels | None = None, make: Make | None = None
) -> xr.Dataset:
    """The archive's day-of-year climatology at its own times; arguments as ``as_dataset``.

    Fields that are made are made of the mean state, as the leaderboard does.
    """
    coefficients = archive.array("climatology")

    def states(at: np.ndarray, keep: list[int] | None) -> np.ndarray:
        return evaluate(coefficients[:, slice(None) if keep is None else keep], archive.times[at])

    return _dataset(archive, channels, make, states)


def _dataset(
    archive: Archive, channels: Channels | None, make: Make | None, states: States
) -> xr.Dataset:
    archive.require_single()
    channels = channels if channels is not None else archive.channels

    def fields(at: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        if make is not None:
            return make(states(at, None), labels)
        return states(at, [archive.channels.index(label) for label in labels])

    levels = sorted({c.level for c in channels if c.level is not None})
    variables = {}
    for name in dict.fromkeys(c.variable for c in channels):
        own = [channels[i] for i in channels.of(name)]
        labels: list[str | None] = [own[0].label]
        if own[0].level is not None:
            every = [Channel(name, level) for level in levels]
            labels = [c.label if c in own else None for c in every]
        variables[name] = _variable(archive, fields, labels, own[0].level is not None)
    coords = {"time": pd.DatetimeIndex(archive.times), **({"level": levels} if levels else {})}
    axes = {n: np.array(getattr(archive.grid, n)) for n in ("latitude", "longitude")}
    attrs = {
        "level_kind": channels.level_kind,
        "channels": channels.labels,
        "world": archive.attributes.get("world", ""),
    }
    return xr.Dataset(variables, {**coords, **axes}, attrs)


def _variable(
    archive: Archive, fields: Fields, labels: Sequence[str | None], levelled: bool = False
) -> xr.Variable:
    shape = (len(archive.times), len(labels), *archive.grid.shape)
    front = ("time", *(("level",) if levelled else ()))
    lazy = _Lazy(shape if levelled else (shape[0], *shape[2:]), fields, labels)
    known = next(label for label in labels if label is not None)
    attrs = {"units": Channel.parse(known).units}
    return xr.Variable((*front, "latitude", "longitude"), indexing.LazilyIndexedArray(lazy), attrs)


class _Lazy(BackendArray):
    """(time, [level], latitude, longitude) of one variable; a label of None is NaN."""

    def __init__(
        self, shape: tuple[int, ...], fields: Fields, labels: Sequence[str | None]
    ) -> None:
        self.shape, self.dtype = shape, np.dtype(np.float32)
        self.fields, self.labels = fields, labels

    def __getitem__(self, key: Any) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._values)

    def _values(self, key: tuple[Any, ...]) -> np.ndarray:
        """Values at an outer index of integers, slices and arrays."""
        at = [np.arange(size)[part] for size, part in zip(self.shape, key, strict=True)]
        levels = np.atleast_1d(at[1]) if len(at) == 4 else np.zeros(1, int)
        whole = self._read(np.atleast_1d(at[0]), levels)
        whole = whole[:, :, np.atleast_1d(at[-2])][..., np.atleast_1d(at[-1])]
        whole = whole if len(at) == 4 else whole[:, 0]
        dropped = tuple(axis for axis, where in enumerate(at) if np.ndim(where) == 0)
        return whole.squeeze(dropped)

    def _read(self, times: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """(T, L, H, W) float32."""
        wanted = [self.labels[i] for i in levels]
        labels = [label for label in wanted if label is not None]
        values = np.full((len(times), len(levels), *self.shape[-2:]), np.nan, np.float32)
        if labels and len(times):
            there = [i for i, label in enumerate(wanted) if label is not None]
            values[:, there] = self.fields(times, labels)
        return values
