"""Totals of a metric over blocks, by season and region, and the score of them with named axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.evaluators.align import LEAD, Block, Columns, Inputs, Pairs
from gapzoo.evaluators.base import Evaluator, Sums, samples_by_region

YEAR = "JFMAMJJASOND"
Key = tuple[str, str]
"""Season and region."""


class Tally:
    """One metric of one variable, over regions and seasons.

    Args:
        evaluators: by region.
        seasons: names for ``months``.
        pairs: what is scored.
        keep: keep the sums of every initial time too, for ``samples``.
    """

    def __init__(
        self,
        evaluators: Mapping[str, Evaluator],
        seasons: Sequence[str],
        pairs: Pairs | Columns,
        keep: bool = False,
    ) -> None:
        self.evaluators, self.coords = dict(evaluators), pairs.coords
        self.times, self.keep, self.kept = pairs.times, keep, dict[Key, Sums]()
        self.seasons = {name: months(name) for name in seasons}
        self.totals: dict[Key, Sums] = {}

    @property
    def any(self) -> Evaluator:
        """One of the evaluators: all but the region is alike."""
        return next(iter(self.evaluators.values()))

    def add(self, inputs: Inputs, block: Block) -> None:
        """Add a block."""
        for region, sums in zip(self.evaluators, self._samples(inputs), strict=True):
            evaluator = self.evaluators[region]
            for season, wanted in self.seasons.items():
                found, at = self._within(sums, inputs.valid, wanted), block.kept
                self._put(self.totals, (season, region), evaluator.total(found), at)
                if self.keep:
                    self._put(self.kept, (season, region), found, (block.time, *at))

    def _samples(self, inputs: Inputs) -> list[Sums]:
        metric, given = self.any, {}
        if metric.series:
            given["series"] = inputs.series(metric.series)
        climatology = inputs.edges if metric.climatology_axes else inputs.climatology
        every = list(self.evaluators.values())
        return samples_by_region(
            every, inputs.forecast, inputs.truth, inputs.mask, climatology, **given
        )

    def _within(self, sums: Sums, valid: np.ndarray, wanted: tuple[int, ...]) -> Sums:
        """Nothing of the samples and leads that are valid in another season."""
        if len(wanted) == 12:
            return sums
        month = pd.DatetimeIndex(valid.ravel()).month.to_numpy().reshape(valid.shape)
        inside = torch.from_numpy(np.isin(month, wanted))

        def kept(name: str, value: Tensor) -> Tensor:
            where = inside.reshape(*inside.shape, *[1] * (value.ndim - 2)).to(value.device)
            nothing = -torch.inf if name in self.any.maxima else 0.0
            return torch.where(where, value, nothing)

        return {name: kept(name, value) for name, value in sums.items()}

    def _put(self, store: dict[Key, Sums], key: Key, part: Sums, at: tuple[slice, ...]) -> None:
        """Join sums to those at a place along the kept axes, or initial times and kept axes."""
        sums, sizes = store.setdefault(key, {}), [len(c) for c in self.coords.values()]
        if len(at) > 2:
            sizes = [self.times, *sizes]
        at = at[: len(sizes)]
        for name, value in part.items():
            if name not in sums:
                nothing = -torch.inf if name in self.any.maxima else 0.0
                shape = (*sizes, *value.shape[len(sizes) :])
                sums[name] = value.new_full(shape, nothing, dtype=torch.float64)
            sums[name][at] = self.any.joined(name, sums[name][at], value)

    def samples(self, key: Key) -> Sums:
        """Sums of every initial time, (B,*E) or (B,*E,K), of a season and a region."""
        return self.kept[key]

    def scores(self, grid: Mapping[str, np.ndarray]) -> xr.DataArray:
        """(season, region, [prediction_timedelta], [level], *bins) of the metric.

        Args:
            grid: coordinates latitude and longitude, for maps.
        """
        kept = {k: v for k, v in self.coords.items() if not (self.any.along_lead and k == LEAD)}
        dims = ["season", "region", *kept, *self.any.bins]
        rows = [
            torch.stack([self.evaluators[r].score(self.totals[s, r]) for r in self.evaluators])
            for s in self.seasons
        ]
        values = torch.stack(rows).cpu().numpy()
        known = {**grid, **self.any.axes}
        bins = {n: known.get(n, range(k)) for n, k in self._sizes(values.shape)}
        axes = {"season": list(self.seasons), "region": list(self.evaluators), **kept}
        return xr.DataArray(values, {**axes, **{n: list(v) for n, v in bins.items()}}, dims)

    def _sizes(self, shape: tuple[int, ...]) -> Any:
        names = self.any.bins
        return zip(names, shape[len(shape) - len(names) :], strict=True)


def months(season: str) -> tuple[int, ...]:
    """Months of a season: ``all``, or initials of three or more in a row, as DJF or NDJFM."""
    if season == "all":
        return tuple(range(1, 13))
    at = (YEAR * 2).find(season.upper())
    if at < 0 or not 3 <= len(season) <= 12:
        raise GapzooError(
            f"no season '{season}'; write 'all' or the initials of months in a row, as DJF or JJAS"
        )
    return tuple((at + i) % 12 + 1 for i in range(len(season)))
