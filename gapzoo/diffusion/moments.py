"""Second moments of a denoiser: how much more of its own input its output should hold.

Whatever the data, the exact posterior mean of a noisy state x_r = x + r z satisfies

    E[x_r . (x - x_hat(x_r))] = 0

mode by mode, and along the probability flow the variance V of a mode follows from it alone:

    dV / d log r = 2 (V - E[x_r . x_hat])

A trained network misses the condition by a percent or two where signal and noise are alike, above
noise 1 to the side of too little, and over five decades of noise its samples lose a tenth of the
variance (Karras et al. 2022, arXiv 2206.00364, section 4, see the same and blow up the noise). Here
the missing part is measured on states that were not trained on, by noise level and signal-to-noise
ratio of the covariance's modes, and given back:

    x_hat' = x_hat + g(r, lambda / r^2) x_r,    g = E[x_r . (x - x_hat)] / E[x_r . x_r]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import GapzooError

if TYPE_CHECKING:
    from gapzoo.diffusion.denoiser import PreconditionedDenoiser

LEVELS, LOWEST, HIGHEST = 11, 0.05, 80.0
"""Noise levels at which a denoiser is measured, evenly spaced in logarithm."""
BINS, FAINTEST, CLEAREST = 10, 1 / 128, 2048.0
"""Bins of lambda / r^2, likewise, by their middles."""
FEWEST = 4
"""Modes that a bin must have, to count."""


@dataclass(frozen=True)
class SecondMoments:
    """The table of g.

    Args:
        gains: (LEVELS, BINS).
    """

    gains: Tensor

    def __post_init__(self) -> None:
        if self.gains.shape != (LEVELS, BINS) or not torch.isfinite(self.gains).all():
            raise GapzooError(
                f"second moments of shape {tuple(self.gains.shape)}; they are ({LEVELS}, {BINS}) "
                "finite numbers, fit them anew with 'gapzoo calibrate'"
            )

    def __call__(self, variance: Tensor, ratio: Tensor) -> Tensor:
        """g of modes (N,) at ratios (B, 1): (B, N), bilinear in the logarithms."""
        table = self.gains.to(variance)
        row, down = place(ratio, LOWEST, HIGHEST, LEVELS)
        column, across = place(variance / ratio**2, FAINTEST, CLEAREST, BINS)
        low = torch.lerp(table[row, column], table[row, column + 1], across)
        high = torch.lerp(table[row + 1, column], table[row + 1, column + 1], across)
        return torch.lerp(low, high, down)

    @classmethod
    def fit(
        cls,
        denoiser: PreconditionedDenoiser,
        batches: Iterable[tuple[Tensor, Tensor | None]],
        generator: torch.Generator,
    ) -> SecondMoments:
        """Measure a denoiser.

        Args:
            denoiser: trained around a covariance; what it has of second moments is left out.
            batches: states (B,C,H,W) that it was not trained on, with their condition.
            generator: of the noise, on the states' device.
        """
        if denoiser.climatology is None:
            raise GapzooError("second moments are those of a covariance's modes; there is none")
        missing, power = torch.zeros(2, LEVELS, BINS, dtype=torch.float64)
        ratios = torch.from_numpy(np.geomspace(LOWEST, HIGHEST, LEVELS)).float()
        for states, cond in batches:
            for level, ratio in enumerate(ratios):
                noise = torch.randn(states.shape, generator=generator, device=states.device)
                found = _measured(denoiser, states, cond, states + ratio * noise, ratio)
                for total, part in zip((missing, power), found, strict=True):
                    total[level] += part
        return cls(torch.stack([_filled(*row) for row in zip(missing, power, strict=True)]))


def _filled(missing: Tensor, power: Tensor) -> Tensor:
    """(BINS,) gains; a bin without modes takes what its neighbours say."""
    known = np.flatnonzero(power.numpy())
    if not len(known):
        return torch.zeros(BINS)
    gains = (missing / power).numpy()[known]
    return torch.from_numpy(np.interp(np.arange(BINS), known, gains)).float()


def _measured(
    denoiser: PreconditionedDenoiser,
    states: Tensor,
    cond: Tensor | None,
    noisy: Tensor,
    ratio: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sums of x_r . (x - x_hat) and of x_r . x_r by bin, (BINS,) each."""
    assert denoiser.climatology is not None
    t = denoiser.schedule.t_of_sigma(ratio)
    alpha = denoiser.schedule(t)[0].to(noisy)
    with torch.no_grad():
        mean = denoiser.with_moments(None)(alpha * noisy, t, cond=cond).mean
    own = denoiser.climatology
    modes, left = own.analyse(noisy), own.analyse(states - mean)
    products = ((modes.conj() * left).real, modes.abs().square())
    variance = own.eigenvalues[: sum(own.ranks)]
    index, share = place(variance / ratio**2, FAINTEST, CLEAREST, BINS)
    nearest = index + (share > 0.5).long()
    count = torch.bincount(nearest, minlength=BINS)
    sums = [
        torch.zeros(BINS, dtype=torch.float64).index_add_(0, nearest, p.sum(0).double().cpu())
        for p in products
    ]
    return sums[0] * (count >= FEWEST), sums[1] * (count >= FEWEST)


def place(value: Tensor, first: float, last: float, count: int) -> tuple[Tensor, Tensor]:
    """Index of the node below on a logarithmic grid, and the share of the way to the next."""
    ends = torch.tensor([first, last], dtype=torch.float64).log()
    steps = (value.clamp(min=1e-30).log() - float(ends[0])) * ((count - 1) / float(ends.diff()))
    steps = steps.clamp(0, count - 1)
    index = steps.floor().clamp(max=count - 2)
    return index.long(), steps - index
