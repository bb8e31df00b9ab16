"""Forecast, truth and what else a metric needs, at the same valid times, a block at a time.

A block is a chunk of the forecast as it lies on disk or in dask: some initial times, leads and
levels, with all members and the whole globe. Only one is in memory. The truth, the climatology and
the mask are read at the block's valid times, each time once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from gapzoo.core import Channels, GapzooError
from gapzoo.core.climatology import harmonics

ALIASES = {
    "lat": "latitude",
    "lon": "longitude",
    "ensemble": "number",
    "member": "number",
    "realization": "number",
    "sample": "number",
    "init_time": "time",
    "lead_time": "prediction_timedelta",
}
"""Other names in use for the dimensions."""
LEAD = "prediction_timedelta"
CALENDAR = ("dayofyear", "month", "hour")


@dataclass(frozen=True)
class Block:
    """Positions of a block along initial time, lead and level."""

    time: slice
    lead: slice
    level: slice = field(default_factory=lambda: slice(None))

    @property
    def kept(self) -> tuple[slice, slice]:
        """Along the kept axes."""
        return self.lead, self.level


@dataclass(frozen=True)
class Inputs:
    """What metrics are given of one block; B initial times, M members, *E leads and levels.

    Args:
        forecast: (B,M,*E,H,W); ``truth``: (B,*E,H,W).
        valid: (B,L) valid times.
        mask: (B,*E,H,W) or None; ``climatology``: (B,*E,H,W) or None.
        edges: (B,K,*E,H,W) or None.
        index: (B,1,L) or None.
    """

    forecast: Tensor
    truth: Tensor
    valid: np.ndarray
    mask: Tensor | None = None
    climatology: Tensor | None = None
    edges: Tensor | None = None
    index: Tensor | None = None

    def series(self, kind: str) -> Tensor | None:
        """(B,K,L) series of a regression: the index, or cosine and sine of the time of year."""
        if kind != "season":
            return self.index
        waves = harmonics(pd.DatetimeIndex(self.valid.ravel()), 1)[:, 1:]
        return torch.from_numpy(waves.reshape(*self.valid.shape, 2)).movedim(-1, 1)


@dataclass(frozen=True)
class Pairs:
    """One variable of forecast and truth, with what belongs to it."""

    forecast: xr.DataArray
    truth: xr.DataArray
    climatology: xr.DataArray | None = None
    edges: xr.DataArray | None = None
    mask: xr.DataArray | None = None
    index: xr.DataArray | None = None

    @property
    def kept(self) -> list[str]:
        """Names of the kept axes *E."""
        return [LEAD, *(["level"] if "level" in self.forecast.dims else [])]

    @property
    def coords(self) -> dict[str, np.ndarray]:
        """Coordinates of the kept axes."""
        return {name: self.forecast[name].values for name in self.kept}

    @property
    def times(self) -> int:
        """Number of initial times."""
        return self.forecast.sizes["time"]

    def blocks(self) -> list[Block]:
        """All blocks, in the order of initial times."""
        axes = [list(_pieces(self.forecast, name)) for name in ("time", *self.kept)]
        return [Block(*parts) for parts in itertools.product(*axes)]

    def load(self, block: Block) -> Inputs:
        """One block in memory."""
        part = {"time": block.time, LEAD: block.lead}
        part |= {"level": block.level} if "level" in self.forecast.dims else {}
        at = replace(self, forecast=self.forecast.isel(part))
        start, lead = (at.forecast[n].values for n in ("time", LEAD))
        valid = start[:, None] + lead
        mask, climate = at._at(at.mask, valid), at._at(at.climatology, valid)
        return Inputs(
            _members(at._tensor(at.forecast, "number"), at.forecast),
            _required(at._at(at.truth, valid)),
            valid,
            None if mask is None else mask.bool(),
            climate,
            at._at(at.edges, valid),
            None if self.index is None else _series(self.index, valid),
        )

    def _at(self, field: xr.DataArray | None, valid: np.ndarray) -> Tensor | None:
        """A field at valid times: (B,[quantile],*E,H,W) float32; each time is read once."""
        if field is None:
            return None
        times, back = np.unique(valid.ravel(), return_inverse=True)
        if "level" in field.dims:
            field = field.sel(level=self.forecast["level"].values, method="nearest")
        return self._spread(at_times(field, times), valid.shape, back)

    def _spread(self, field: xr.DataArray, shape: tuple[int, ...], back: np.ndarray) -> Tensor:
        """From the distinct valid times to initial times and leads."""
        rest = [*self.kept[1:], "latitude", "longitude"]
        field = field.expand_dims({d: self.forecast[d] for d in rest if d not in field.dims})
        front = [d for d in ("time", "quantile") if d in field.dims]
        values = field.transpose(*front, *rest).values
        values = values if "time" in front else values[None].repeat(back.max() + 1, 0)
        found = torch.from_numpy(values[back].astype(np.float32)).unflatten(0, shape)
        return found.movedim(2, 1) if "quantile" in field.dims else found

    def _tensor(self, field: xr.DataArray, extra: str) -> Tensor:
        """(B,[extra],*E,H,W) float32."""
        front = [extra] if extra in field.dims else []
        order = ["time", *front, *self.kept, "latitude", "longitude"]
        values = field.transpose(*order).values.astype(np.float32, copy=False)
        return torch.from_numpy(np.ascontiguousarray(values))


def at_times(field: xr.DataArray, times: np.ndarray) -> xr.DataArray:
    """A field at T times, (time, ...); a constant one as it is.

    It may lie by ``time``, by calendar (``dayofyear``, ``month``, ``hour``) or as coefficients of
    the time of year (``harmonic``, see gapzoo.core.climatology).
    """
    moments = pd.DatetimeIndex(times)
    if "time" in field.dims:
        return field.isel(time=_positions(field, times))
    if "harmonic" in field.dims:
        basis = harmonics(moments, field.sizes["harmonic"] // 2)
        return xr.dot(xr.DataArray(basis, dims=("time", "harmonic")), field, dim="harmonic")
    parts = {n: np.asarray(getattr(moments, n)) for n in CALENDAR if n in field.dims}
    at = {n: xr.DataArray(values, dims="time") for n, values in parts.items()}
    hour = {"hour": at.pop("hour")} if "hour" in at else {}
    return field.sel(at).sel(hour, method="pad")


@dataclass(frozen=True)
class Columns:
    """All variables and levels of a state as one axis of channels, behind the leads.

    Args:
        parts: the variables' pairs.
        channels: their channels, in the same order.
    """

    parts: tuple[Pairs, ...]
    channels: Channels

    kept = (LEAD,)

    @property
    def coords(self) -> dict[str, np.ndarray]:
        """Coordinates of what is left once the channels are used up."""
        return {LEAD: self.parts[0].coords[LEAD]}

    @property
    def times(self) -> int:
        """Number of initial times."""
        return self.parts[0].times

    def blocks(self) -> list[Block]:
        """All blocks, of whole columns."""
        axes = [list(_pieces(self.parts[0].forecast, name)) for name in ("time", LEAD)]
        return [Block(*parts) for parts in itertools.product(*axes)]

    def load(self, block: Block) -> Inputs:
        """One block in memory: (B,M,L,C,H,W)."""
        each = [p.load(replace(block, level=slice(None))) for p in self.parts]
        masks = [i.mask for i in each]
        return Inputs(
            torch.cat([_channels(i.forecast, 5) for i in each], 3),
            torch.cat([_channels(i.truth, 4) for i in each], 2),
            each[0].valid,
            None if masks[0] is None else torch.cat([_channels(_required(m), 4) for m in masks], 2),
        )


def _pieces(data: xr.DataArray, name: str) -> Iterator[slice]:
    """Slices along a dimension as it is chunked; one initial time each where it is not."""
    whole, sizes = data.sizes[name], data.chunksizes.get(name)
    if sizes is None:
        size = data.encoding.get("preferred_chunks", {}).get(name, 1 if name == "time" else whole)
        sizes = (size,) * -(-whole // max(size, 1))
    edges = np.minimum(np.cumsum([0, *sizes]), whole)
    return (slice(int(a), int(b)) for a, b in itertools.pairwise(edges))


def _positions(data: xr.DataArray, times: np.ndarray) -> np.ndarray:
    """Where the times are in a field; raises where one is not."""
    at = data.indexes["time"].get_indexer(pd.DatetimeIndex(times))
    if (at < 0).any():
        raise GapzooError(
            f"{data.name} has no time {times[at < 0][0]}, a valid time of the forecast; "
            "give a longer truth or fewer leads"
        )
    return at


def _series(index: xr.DataArray, valid: np.ndarray) -> Tensor:
    """(B,1,L) float64 of an index (time), each value holding until the next (as monthly means)."""
    times = pd.DatetimeIndex(index["time"].values)
    gap = times[1:] - times[:-1]
    limit = gap.max() if len(gap) else pd.Timedelta(0)
    at = times.get_indexer(pd.DatetimeIndex(valid.ravel()), method="pad", tolerance=limit)
    if (at < 0).any():
        raise GapzooError(
            f"the index has no value at {valid.ravel()[at < 0][0]}, a valid time of the forecast; "
            "give a longer one or fewer leads"
        )
    values = index.values.astype(np.float64)[at]
    return torch.from_numpy(values.reshape(valid.shape))[:, None]


def _members(values: Tensor, data: xr.DataArray) -> Tensor:
    """An axis of one member where the forecast has none."""
    return values if "number" in data.dims else values[:, None]


def _required(values: Tensor | None) -> Tensor:
    assert values is not None
    return values


def _channels(values: Tensor, axes: int) -> Tensor:
    """A level axis of length one where a variable has none, and so ``axes`` axes."""
    return values.unsqueeze(-3) if values.ndim == axes else values
