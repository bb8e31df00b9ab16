"""Normalising and conditioning a batch on the device that it lies on.

A loader hands out what it read and the time of year as harmonics; the arithmetic of ``World``,

    z = (x - h(day) . c) / std,    cond = (1, cos, sin, forcing anomalies / 2 std, static)

then runs on the accelerator, where it is free. On the CPU it takes the time of one more reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core.climatology import harmonics
from gapzoo.core.world import STATIC_INPUTS, World

Batch = dict[str, Tensor]
YEAR = 3
"""Columns at the end of a calendar: the flag, cosine and sine of the day of the year."""


@dataclass(frozen=True)
class _Constants:
    """What does not change from batch to batch, on one device."""

    mean: Tensor
    std: Tensor
    forcing_mean: Tensor
    forcing_scale: Tensor
    static: Tensor


class Normaliser:
    """Takes batches as they were read to what networks take.

    Args:
        world: what normalises them.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._there: dict[torch.device, _Constants] = {}

    def calendar(self, times: pd.DatetimeIndex) -> Tensor:
        """(T, 1 + 2K + 3) float32: harmonics of the time of year, then (1, cos, sin) of its day."""
        sizes = (self.world.climatology.mean_coefficients, self.world.forcing_climatology)
        count = max(len(size) // 2 for size in sizes)
        parts = [harmonics(times, count), harmonics(times.normalize(), 1)]
        return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32))

    def __call__(self, batch: Batch) -> Batch:
        """``state`` and ``cond`` (and ``target``) of a batch as it was read.

        Args:
            batch: ``physical`` (B, C, H, W) and ``forcing`` (B, F, H, W) in SI units, which are
                overwritten, and ``calendar`` of the same times; maybe ``physical_target`` with
                ``calendar_target``; anything else is passed on. One with a ``state`` is done.
        """
        if "state" in batch:
            return batch
        batch = dict(batch)
        known = self._constants(batch["physical"].device)
        calendar = batch.pop("calendar")
        out = {"state": _normalised(batch.pop("physical"), calendar, known)}
        if "physical_target" in batch:
            later = batch.pop("calendar_target")
            out["target"] = _normalised(batch.pop("physical_target"), later, known)
        out["cond"] = _condition(batch.pop("forcing"), calendar, known)
        return {**out, **batch}

    def _constants(self, device: torch.device) -> _Constants:
        if device not in self._there:
            world, exact = self.world, _exact(device)
            static = world.condition(pd.DatetimeIndex(["2000-01-01"]))[0, -STATIC_INPUTS:]
            scale = np.maximum(2 * world.forcing_std, 1e-6)[:, None, None]
            self._there[device] = _Constants(
                torch.as_tensor(world.climatology.mean_coefficients).flip(0).to(device, exact),
                world.std.to(device),
                torch.as_tensor(world.forcing_climatology).flip(0).to(device, exact),
                torch.as_tensor(scale, dtype=torch.float32).to(device),
                static.to(device),
            )
        return self._there[device]


def _exact(device: torch.device) -> torch.dtype:
    """TensorFloat-32 would round a product of float32; surface pressure would be 50 Pa off."""
    return torch.float64 if device.type == "cuda" else torch.float32


def _normalised(x: Tensor, calendar: Tensor, known: _Constants) -> Tensor:
    return _anomaly(x, calendar, known.mean).div_(known.std)


def _anomaly(x: Tensor, calendar: Tensor, mean: Tensor) -> Tensor:
    """Fields (B, C, H, W) less their climatology (1 + 2K, C, H, W), in place.

    The harmonics come in reverse, the year's mean last, so that it alone is rounded at its size.
    """
    season = calendar[:, : len(mean)].flip(1).to(mean.dtype)
    x.flatten(1).sub_(season @ mean.flatten(1))
    return x


def _condition(forcing: Tensor, calendar: Tensor, known: _Constants) -> Tensor:
    count, height, width = len(forcing), *forcing.shape[-2:]
    year = calendar[:, -YEAR:, None, None].expand(count, YEAR, height, width)
    scaled = _anomaly(forcing, calendar, known.forcing_mean).div_(known.forcing_scale)
    return torch.cat([year, scaled, known.static.expand(count, *known.static.shape)], 1)
