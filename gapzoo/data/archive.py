"""The archive: one Zarr v3 store of states and forcings, read at the speed of raw memory.

    state   (time, channel, latitude, longitude)           float32, SI units
    forcing (time, forcing_channel, latitude, longitude)    float32
    static  (static_channel, latitude, longitude)           float32
    run     (time)   number of the unbroken stretch that a time belongs to

One chunk is one time step, uncompressed, ``SHARD`` of them a shard (fewer where they are large): a
shard file is then an array in raw memory (plus an index); see gapzoo.data.reading.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from gapzoo.core import Channels, GapzooError, Grid, nearest
from gapzoo.data.calendars import on_the_hour
from gapzoo.data.reading import ShardReader

SHARD = 120
"""Time steps a shard: 30 days of 6 h, some 35 MB at 64x32 and 37 channels."""
SHARD_BYTES = 2**28
"""Largest shard of states of a source that chooses its size by ``steps_a_shard``."""
FORMAT = "gapzoo-archive-1"
ATTRIBUTES = ("channels", "level_kind", "forcing_channels", "static_channels")
ARRAYS = ("state", "forcing", "static", "time", "run", "latitude", "longitude")
EPOCH = pd.Timestamp("1900-01-01")


@dataclass(frozen=True)
class ArchiveSpec:
    """What an archive holds, known before a single state is written."""

    grid: Grid
    channels: Channels
    forcing_channels: tuple[str, ...]
    static: dict[str, np.ndarray]
    times: pd.DatetimeIndex
    runs: np.ndarray
    attributes: dict[str, Any] = field(default_factory=dict)
    shard: int = SHARD

    @property
    def shards(self) -> int:
        """Number of shards along time."""
        return -(-len(self.times) // self.shard)


def steps_a_shard(channels: int, grid: Grid) -> int:
    """Steps of so many float32 channels that fit in ``SHARD_BYTES``, at most ``SHARD``."""
    height, width = grid.shape
    return max(1, min(SHARD, SHARD_BYTES // (4 * channels * height * width)))


def create(path: Path, spec: ArchiveSpec) -> None:
    """Lay out an empty archive; an existing one of the same spec is kept as it is.

    Raises:
        GapzooError: where ``path`` holds another archive, or a time is no whole hour.
    """
    attrs = _attributes(spec)
    on_the_hour(spec.times)
    if (path / "zarr.json").exists():
        old = dict(zarr.open_group(path, mode="r").attrs)
        _refuse_other(path, old, attrs)
        _refuse_moved(path, spec)
        return
    root = zarr.create_group(path)
    height, width = spec.grid.shape
    for name, channels in (("state", len(spec.channels)), ("forcing", len(spec.forcing_channels))):
        _series(root, name, (len(spec.times), channels, height, width), spec.shard)
    static = np.stack(list(spec.static.values())) if spec.static else np.zeros((0, height, width))
    _array(root, "static", static.astype(np.float32), _STATIC)
    hours = np.asarray((spec.times - EPOCH) // pd.Timedelta(hours=1), np.int64)
    units = {"units": f"hours since {EPOCH:%Y-%m-%d}", "calendar": "proleptic_gregorian"}
    _array(root, "time", hours, ("time",)).attrs.update(units)
    _array(root, "run", np.asarray(spec.runs, np.int32), ("time",))
    _array(root, "latitude", np.array(spec.grid.latitude), ("latitude",)).attrs.update(
        units="degrees_north"
    )
    _array(root, "longitude", np.array(spec.grid.longitude), ("longitude",)).attrs.update(
        units="degrees_east"
    )
    root.attrs.update(attrs)  # last: an archive with attributes is laid out whole


_STATIC = ("static_channel", "latitude", "longitude")
_ELSEWHERE = "give another place (--output; of the demo, --folder) or remove it"


def _attributes(spec: ArchiveSpec) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "channels": spec.channels.labels,
        "units": [c.units for c in spec.channels],
        "level_kind": spec.channels.level_kind,
        "forcing_channels": list(spec.forcing_channels),
        "static_channels": list(spec.static),
        "Conventions": "CF-1.11",
        "start": str(spec.times[0]),
        "steps": len(spec.times),
        **spec.attributes,
    }


def _refuse_other(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if old.get(key) != value:
            raise GapzooError(
                f"{path} holds another archive: its '{key}' is {old.get(key)!r}, not {value!r}; "
                f"{_ELSEWHERE}"
            )


def _refuse_moved(path: Path, spec: ArchiveSpec) -> None:
    old = Archive(path)
    same = {"grid": old.grid.matches(spec.grid), "times": old.times.equals(spec.times)}
    same["runs"] = np.array_equal(old.runs, spec.runs)
    same["shards"] = old.shard == spec.shard
    for name in (n for n, alike in same.items() if not alike):
        raise GapzooError(
            f"{path} holds another archive: its {name} differ from those asked for; {_ELSEWHERE}"
        )


def _series(root: zarr.Group, name: str, shape: tuple[int, ...], shard: int) -> None:
    root.create_array(
        name,
        shape=shape,
        chunks=(1, *shape[1:]),
        shards=(shard, *shape[1:]),
        dtype="float32",
        compressors=None,
        fill_value=np.float32("nan"),
        dimension_names=("time", _CHANNEL[name], "latitude", "longitude"),
    )


_CHANNEL = {"state": "channel", "forcing": "forcing_channel"}


def _array(root: zarr.Group, name: str, data: np.ndarray, dims: tuple[str, ...]) -> zarr.Array:
    if name in root:
        del root[name]
    array = root.create_array(name, shape=data.shape, dtype=data.dtype, dimension_names=dims)
    array[...] = data
    return array


def write_array(path: Path, name: str, data: np.ndarray, dims: tuple[str, ...]) -> None:
    """Add or replace a small array of an archive, such as a statistic."""
    _array(zarr.open_group(path, mode="r+"), name, data, dims)


def write_shard(path: Path, shard: int, state: np.ndarray, forcing: np.ndarray) -> None:
    """Write one whole shard; its file appears at once or not at all."""
    root = zarr.open_group(path, mode="r+")
    first = shard * root["state"].shards[0]  # type: ignore[union-attr,index]
    window = slice(first, first + len(state))
    for name, values in (("forcing", forcing), ("state", state)):
        root[name][window] = np.asarray(values, np.float32)  # type: ignore[index]


class Archive:
    """A finished archive, opened for reading.

    Args:
        path: the store's folder, or any URL that zarr opens.

    Raises:
        GapzooError: where there is no archive, or one that was not finished.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.root = zarr.open_group(str(path), mode="r")
            self.attributes: dict[str, Any] = dict(self.root.attrs)
        except (FileNotFoundError, OSError, ValueError) as error:
            raise GapzooError(
                f"no archive at {path} ({error}); make one with 'gapzoo build-data'"
            ) from error
        if self.attributes.get("format") != FORMAT:
            raise GapzooError(f"{path} is no gapzoo archive; make one with 'gapzoo build-data'")
        missing = [n for n in ATTRIBUTES if n not in self.attributes]
        missing += [n for n in ARRAYS if n not in self.root]
        if missing:
            raise GapzooError(f"{path} is damaged: it has no {', '.join(missing)}; build it again")

    @cached_property
    def grid(self) -> Grid:
        """The horizontal grid."""
        return Grid(*(tuple(np.asarray(self.root[n][:])) for n in ("latitude", "longitude")))  # type: ignore[index]

    @cached_property
    def channels(self) -> Channels:
        """The state's channels, with the kind of their levels."""
        return Channels(self.attributes["channels"], self.attributes["level_kind"])

    @property
    def forcing_channels(self) -> list[str]:
        """Names of the forcing's channels."""
        return list(self.attributes["forcing_channels"])

    @cached_property
    def times(self) -> pd.DatetimeIndex:
        """Valid time of every step."""
        hours = np.asarray(self.root["time"][:])  # type: ignore[index]
        return pd.DatetimeIndex(EPOCH + pd.to_timedelta(hours, unit="h"))

    @cached_property
    def runs(self) -> np.ndarray:
        """(T,) number of the unbroken stretch each step belongs to."""
        return np.asarray(self.root["run"][:])  # type: ignore[index]

    @property
    def step(self) -> pd.Timedelta:
        """The shortest time between steps: a calendar's gaps may stand anywhere."""
        if len(self.times) < 2:
            raise GapzooError(f"{self.path} has one step and so no time between steps; add another")
        steps = self.times[1:] - self.times[:-1]
        return pd.Timedelta(steps[steps > pd.Timedelta(0)].min())

    @cached_property
    def shard(self) -> int:
        """Time steps a shard file."""
        return int(self.root["state"].shards[0])  # type: ignore[union-attr,index]

    def static(self, name: str) -> np.ndarray:
        """(H, W) of a static field."""
        names = list(self.attributes["static_channels"])
        if name not in names:
            raise GapzooError(f"{self.path} has no static field '{name}'; {nearest(name, names)}")
        return np.asarray(self.root["static"][names.index(name)])  # type: ignore[index]

    def array(self, name: str) -> np.ndarray:
        """A small array of the store: ``mean``, ``climatology``, ...; see data.statistics."""
        if name not in self.root:
            raise GapzooError(f"{self.path} has no '{name}'; finish it with 'gapzoo build-data'")
        return np.asarray(self.root[name][...])  # type: ignore[index]

    @cached_property
    def realisations(self) -> int:
        """How often a time occurs at most: more than once where the same years follow again."""
        return int(self.times.value_counts().max())

    def indices(self, start: str | None, end: str | None, every: int = 1) -> np.ndarray:
        """Positions of the steps from ``start`` through ``end`` (dates or years, inclusive).

        Of several realisations, those of all.
        """
        known = self.times.unique().sort_values()
        within = known[known.slice_indexer(start, end)]
        chosen = np.flatnonzero(self.times.isin(within))[::every]
        if not len(chosen):
            raise GapzooError(
                f"{self.path} has no step from {start} to {end}; it covers "
                f"{known[0]:%Y-%m-%d} to {known[-1]:%Y-%m-%d}"
            )
        return chosen

    def find(self, times: Any, **options: Any) -> np.ndarray:
        """(N,) positions of valid times, -1 where there is no such step.

        Args:
            times: what a DatetimeIndex is made of.
            options: as pandas' ``get_indexer`` takes them, such as ``method`` and ``tolerance``.

        Raises:
            GapzooError: where times occur more than once.
        """
        self.require_single()
        return self.times.get_indexer(pd.DatetimeIndex(times), **options)

    def require_single(self) -> None:
        """Raise GapzooError for several realisations, of which none is the truth of a time."""
        if self.realisations > 1:
            raise GapzooError(
                f"{self.path} holds {self.realisations} realisations; take one of a single "
                "realisation as the truth"
            )

    def read(
        self,
        name: str,
        positions: np.ndarray,
        channels: list[int] | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read steps of ``state`` or ``forcing``.

        Args:
            name: ``state`` or ``forcing``.
            positions: (N,) steps, in any order.
            channels: positions of the channels wanted; all where None.
            out: (N, C, H, W) float32 to fill; a new array where None.

        Returns:
            (N, C, H, W) float32.

        Raises:
            GapzooError: where a step was never written.
        """
        return self._readers[name].read(positions, channels, out)

    @cached_property
    def _readers(self) -> dict[str, ShardReader]:
        names = ("state", "forcing")
        return {name: ShardReader(self.root[name], self.path / name) for name in names}

    @cached_property
    def hash(self) -> str:
        """16 hex digits over what the archive holds and its statistics."""
        digest = hashlib.sha256()
        for key in sorted(self.attributes):
            digest.update(f"{key}={self.attributes[key]}".encode())
        for name in [n for n in ("mean", "std") if n in self.root]:
            digest.update(np.ascontiguousarray(self.array(name)).tobytes())
        return digest.hexdigest()[:16]
