"""Coefficients of states along the leading modes of a climate, in units of their typical change.

Members that differ by a few numbers can have the spread of their errors at every point, channel and
wavenumber, and go together too closely between them: their sums over the globe, which the leading
modes are and which persist, are then drawn too far apart. Seen along those modes they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError
from gapzoo.diffusion.modes import along, waves_of
from gapzoo.diffusion.zonal import ZonalCovariance


class LeadingModes(nn.Module):
    """The modes and what they typically change by.

    Args:
        vectors: one (C*H, R_m) complex orthonormal matrix for each zonal wavenumber m.
        change: (sum of R_m,) root mean square of the modulus of a coefficient's change.
        shape: (C, H, W) of states.
    """

    change: Tensor

    def __init__(
        self, vectors: Sequence[Tensor], change: Tensor, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.shape, self.ranks = shape, [v.shape[1] for v in vectors]
        for m, vector in enumerate(vectors):
            self.register_buffer(f"vector_{m}", vector, persistent=False)
        self.register_buffer("change", change.float(), persistent=False)

    @classmethod
    def fit(cls, climatology: ZonalCovariance, least: float, changes: Tensor) -> Self:
        """Of the modes of a climate whose variance is ``least`` or more.

        Args:
            climatology: whose modes.
            least: normalised.
            changes: (N,C,H,W) of normalised states over one step.

        Raises:
            GapzooError: where no mode has such a variance.
        """
        few = climatology.merged(climatology.above(least))
        count, most = sum(few.ranks), float(climatology.eigenvalues.max())
        if count == 0:
            raise GapzooError(
                f"no mode of the climate has a variance of {least:g}, at most {most:.3g}"
            )
        typical = few.products(changes, changes)[:count].clamp(min=1e-12).sqrt()
        return cls(few.vectors, typical, climatology.shape)

    def forward(self, states: Tensor) -> Tensor:
        """(..., K) real coefficients of states (...,C,H,W), cosines and sines of waves apart.

        Typical changes have a root mean square of 1 in each.
        """
        waves = waves_of(states.flatten(0, -4).float())
        found, scales = [], self.change.split(self.ranks)
        for m, (wave, scale) in enumerate(zip(waves, scales, strict=True)):
            inside = along(wave, getattr(self, f"vector_{m}")) / scale
            single = m in (0, self.shape[2] / 2)
            found += [inside.real] if single else [inside.real * 2**0.5, inside.imag * 2**0.5]
        return torch.cat(found, -1).unflatten(0, states.shape[:-3])
