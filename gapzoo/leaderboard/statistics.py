"""What is kept of one case: area means that add up over cases, for channels and headline fields.

With x_m the members' and y the truth's anomalies in SI units, <.> the area mean, x_bar the mean
member and s_c the climatological spread, for each channel, and each headline field (Z500, T850,
U850, Q700, mean sea level pressure, where the world can make them):

    crps, squared_error = <(x_bar - y)^2>, corrected_variance = (M+1)/M <var x>   (see evaluators)
    fo, ff, oo = <x_bar y>, <x_bar^2>, <y^2>                                      (for the ACC)
    power      = zonal power of members (their mean) and of the truth, by wavenumber
    waves      = zonal power of x_bar - y, and (M+1)/M that of x_m - x_bar over M - 1, summed over m

and the counts of the truth's rank over all channels and points. Everything of a finished row is a
function of these, so a case that was kept need not be drawn again.
"""

from __future__ import annotations

import time as clock

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core.pressure import HEADLINE, to_pressure
from gapzoo.core.world import World
from gapzoo.evaluators.crps import Estimator, ensemble_crps
from gapzoo.evaluators.spectra import zonal_power
from gapzoo.evaluators.spread import variance

Arrays = dict[str, np.ndarray]
"""Statistics of a case by name; ``channel.crps`` (C,), ``headline.crps`` (N,), ``ranks`` (M+1,)."""
MAPPED = ("geopotential@500", "temperature@850")
"""Headline fields of which squared error and variance are kept at every point."""
_NEEDS = ("temperature", "specific_humidity", "surface_pressure", "u_component_of_wind")


def headlines(world: World) -> tuple[str, ...]:
    """Labels of the headline fields that a world's channels make."""
    channels = world.channels
    if channels.level_kind == "pressure":
        return tuple(label for label in HEADLINE if label in channels.labels)
    variables = {c.variable for c in channels}
    whole = variables.issuperset(_NEEDS) and "geopotential_at_surface" in world.static_channels
    levels = {v: {c.level for c in channels if c.variable == v} for v in variables}
    alike = whole and all(levels[v] == levels["temperature"] for v in _NEEDS if v != _NEEDS[2])
    return HEADLINE if alike else ()


def statistics(
    world: World,
    ensemble: Tensor,
    truth: Tensor,
    estimator: Estimator = "fair",
    time: pd.Timestamp | None = None,
) -> Arrays:
    """Statistics of one case.

    Args:
        world: of the states.
        ensemble: (M, C, H, W) normalised.
        truth: (C, H, W) normalised.
        estimator: of the CRPS.
        time: valid time; without it there are no headline fields.
    """
    started = clock.process_time()
    members, true = ensemble * world.std, truth * world.std
    found = _group(world, "channel", members, true, estimator)
    if len(members) > 1:
        below = (members < true).sum(0).flatten()
        found["ranks"] = np.bincount(below.numpy(), minlength=len(members) + 1)
    labels = headlines(world) if time is not None else ()
    if labels and time is not None:
        mean = world.mean(pd.DatetimeIndex([time]))[0]
        climate = to_pressure(mean, world, labels)
        fields, target = (to_pressure(x + mean, world, labels) - climate for x in (members, true))
        found |= _group(world, "headline", fields, target, estimator)
        found |= _maps(fields, target, [labels.index(n) for n in MAPPED if n in labels])
    found["seconds"] = np.array(clock.process_time() - started)
    return found


def _group(world: World, group: str, x: Tensor, y: Tensor, estimator: Estimator) -> Arrays:
    """Statistics of members (M, N, H, W) and truth (N, H, W)."""
    count, mean = len(x), x.mean(0)
    fields = {
        "crps": ensemble_crps(x[None], y[None], estimator)[0],
        "squared_error": (mean - y) ** 2,
        "fo": mean * y,
        "ff": mean**2,
        "oo": y**2,
    }
    if count > 1:
        fields["corrected_variance"] = variance(x[None])[0].double() * ((count + 1) / count)
    weights = torch.from_numpy(world.grid.area_weights)
    area = weights[:, None] / y[0].numel()
    found = {k: (v.double() * area).sum((-2, -1)).numpy() for k, v in fields.items()}
    rows = weights / len(weights)
    last = y.shape[-1] // 3 + 1

    def power(fields: Tensor) -> Tensor:
        return torch.einsum("nchk,h->ck", zonal_power(fields), rows)[:, :last]

    found["power"] = torch.stack([power(x) / count, power(y[None])]).numpy()
    if count > 1:
        apart = power(x - mean) * ((count + 1) / count / (count - 1))
        found["waves"] = torch.stack([power((mean - y)[None]), apart]).numpy()
    return {f"{group}.{name}": value for name, value in found.items()}


def _maps(x: Tensor, y: Tensor, keep: list[int]) -> Arrays:
    """(2, N, H, W) float32: squared error and corrected variance of the fields that are mapped."""
    count, parts = len(x), [(x.mean(0) - y)[keep] ** 2]
    if count > 1:
        parts.append(variance(x[None])[0][keep] * ((count + 1) / count))
    return {"maps": torch.stack(parts).numpy()}
