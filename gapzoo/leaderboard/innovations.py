"""Observations against background and analysis: by channel, in sums that add up over cycles.

With d_b = y - H x_b and d_a = y - H x_a of the ensemble means, s^2 the ensemble's variance of H x
(times (M+1)/M) and r^2 that of the observation's error, a consistent ensemble has

    <d^2> = <s^2 + r^2>,        <d_a d_b> = <r^2>  (Desroziers et al. 2005, for the background)

for observations that x_b (or x_a) has not seen, as withheld ones are for the analysis; their CRPS
is that of the Gaussian N(H x, s^2 + r^2). Of those that it was made from, an optimal analysis has

    <d_a^2> = <r^2 - s_a^2>.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core.world import World
from gapzoo.evaluators.crps import gaussian_crps
from gapzoo.leaderboard.statistics import Arrays

NAMES = ("count", "departure", "square", "expected", "error", "crossed", "crps")


def departures(
    world: World,
    operator: Any,
    y: Tensor,
    errors: Tensor,
    time: pd.Timestamp,
    members: Tensor,
    other: Tensor | None = None,
    fitted: bool = False,
) -> np.ndarray:
    """(7, C) sums over observations by channel, in the order of ``NAMES``.

    Args:
        world: of the states.
        operator: on states in SI units, N observations.
        y, errors: (N,) SI units.
        time: valid time.
        members: (M, C, H, W) normalised: what is compared.
        other: (M, C, H, W) normalised: whose departures enter ``crossed``.
        fitted: the members were made from these observations.
    """
    scaled, offset = operator.scaled(world.mean(pd.DatetimeIndex([time]))[0], world.std)
    seen, left = scaled(members).double(), (y - offset).double()
    count, d, r2 = len(members), left - seen.mean(0), errors.double() ** 2
    s2 = seen.var(0) * (count + 1) / count if count > 1 else torch.zeros_like(d)
    crossed = d if other is None else left - scaled(other).double().mean(0)
    crps = gaussian_crps(torch.zeros_like(d), (s2 + r2).sqrt(), d)
    wide = (r2 - s2).clamp(min=0) if fitted else s2 + r2
    rows = (torch.ones_like(d), d, d**2, wide, r2, d * crossed, crps)
    size, channel = len(world.channels), operator.channel.numpy()
    return np.stack([np.bincount(channel, row.numpy(), minlength=size) for row in rows])


def summary(world: World, sums: np.ndarray, fitted: bool = False) -> dict[str, Any]:
    """Means by channel, SI units, and one ratio of what is expected over what is found.

    Args:
        world: of the channels.
        sums: see ``departures``.
        fitted: as there; what holds of unseen observations alone is then left out.
    """
    found = dict(zip(NAMES, sums / np.maximum(sums[0], 1), strict=True))
    rms = np.sqrt(found["square"])
    values = {
        "bias": found["departure"],
        "rms": rms,
        "expected": np.sqrt(found["expected"]),
        "error": np.sqrt(found["error"]),
        "diagnosed_error": np.sqrt(np.maximum(found["crossed"], 0)),
        "crps": found["crps"],
    }
    unseen = ("diagnosed_error", "crps") if fitted else ()
    values = {name: value for name, value in values.items() if name not in unseen}
    labels = world.channels.labels
    seen = np.flatnonzero(sums[0])
    each = {n: {labels[c]: float(f"{v[c]:.4g}") for c in seen} for n, v in values.items()}
    share = found["square"][seen] / found["error"][seen]
    ratio = np.sqrt((found["expected"][seen] / found["error"][seen]).mean() / share.mean())
    return {"consistency": float(ratio), "observations": int(sums[0].sum()), **each}


def merged(parts: list[Arrays], name: str) -> np.ndarray | None:
    """Sum over cycles of one kind of departures; None where no cycle has it."""
    found = [part[name] for part in parts if name in part]
    return np.sum(found, 0) if found else None
