"""Localisation: tapers that damp sampled covariances of far-apart places and levels.

Gaspari & Cohn (1999, eq. 4.10) with a half-width c = sqrt(10/3) L, so that near zero the taper is
the Gaussian exp(-d^2 / 2 L^2); it vanishes beyond 2 c = 3.65 L. Distances on the sphere are
chords, for which the taper is positive definite at any L (arcs are 1 % longer at 3000 km).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError
from gapzoo.core.grid import EARTH_RADIUS

SUPPORT = 2 * math.sqrt(10 / 3)
"""The taper is zero beyond this many lengths."""


def gaspari_cohn(distance: Tensor, length: float) -> Tensor:
    """The taper at ``distance`` (any shape); ``length`` is the Gaussian's standard deviation.

    An infinite length is no localisation: 1 everywhere.

    Raises:
        GapzooError: where the length is not positive.
    """
    if not length > 0:
        raise GapzooError(f"localisation length {length}; give a positive one, or inf for none")
    r = distance / (length * SUPPORT / 2)
    near = (((-0.25 * r + 0.5) * r + 0.625) * r - 5 / 3) * r**2 + 1
    s = r.clamp(min=1.0, max=2.0)
    far = ((((s / 12 - 0.5) * s + 0.625) * s + 5 / 3) * s - 5) * s + 4 - 2 / (3 * s)
    return torch.where(r <= 1, near, far).clamp(0.0, 1.0)


def sphere_points(latitude: Tensor, longitude: Tensor) -> Tensor:
    """(N,3) float64 unit vectors of places in degrees."""
    lat, lon = (torch.deg2rad(a.double()) for a in (latitude, longitude))
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], dim=-1)


def chord(a: Tensor, b: Tensor) -> Tensor:
    """(n,m) metres between unit vectors (n,3) and (m,3)."""
    return EARTH_RADIUS * (2 - 2 * a @ b.T).clamp(min=0).sqrt()


def channel_taper(channels: Channels, vertical: float = math.inf, cross: float = 1.0) -> Tensor:
    """(C,C) float32 taper between channels.

    Args:
        vertical: length in the logarithm of the level; single-level variables count as surface.
        cross: factor between different variables, 0 to 1.
    """
    known = [c.level for c in channels if c.level is not None]
    surface = (1.0 if channels.level_kind == "sigma" else 1000.0) if known else 1.0
    height = torch.tensor([math.log(c.level or surface) for c in channels], dtype=torch.float64)
    taper = gaspari_cohn((height[:, None] - height[None]).abs(), vertical)
    names = np.array([c.variable for c in channels])
    same = torch.from_numpy(names[:, None] == names[None])
    return torch.where(same, taper, cross * taper).float()
