"""Zonal spectra, their ratio to the truth's, and spectral coherence.

    F_k = 1/W sum_j x_j exp(-2 pi i j k / W),  k = 0..W//2
    P_k = c_k |F_k|^2,  c_k = 1 for k = 0 and (W even) k = W/2, else 2
    sum_k P_k = 1/W sum_j x_j^2   (Parseval)

averaged over latitude rows by area, samples and members. With G_k the truth's coefficients

    ratio_k = <P_k(x)> / <P_k(y)>
    coherence_k = |<F_k G_k*>|^2 / (<|F_k|^2> <|G_k|^2>),  0 to 1

A row counts if all of it does: rows with masked points are left out, and so are rows that a
region cuts through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums


def coefficients(field: Tensor) -> Tensor:
    """sqrt(c_k) F_k of each row: (...,H,W) to (...,H,W//2+1) complex128."""
    width = field.shape[-1]
    found = torch.fft.rfft(field.double(), norm="forward")
    doubled = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64, device=field.device)
    doubled[0] = 1
    if width % 2 == 0:
        doubled[-1] = 1
    return found * doubled.sqrt()


def zonal_power(field: Tensor) -> Tensor:
    """P_k of each row: (...,H,W) to (...,H,W//2+1) float64, units squared."""
    return _squared(coefficients(field))


def row_weights(weight: Tensor) -> Tensor:
    """Weights of rows, (...,H), from those of points; 0 for a row that is not whole."""
    low, high = weight.amin(-1), weight.amax(-1)
    rows = torch.where(torch.isclose(low, high), high, 0)
    if weight.ndim == 2 and not bool((rows > 0).any()):
        raise GapzooError("the region holds no whole latitude row; spectra need a latitude band")
    return rows


@EVALUATORS.register("spectrum")
class Spectrum(Evaluator):
    """Zonal power of the members by wavenumber, (*E,W//2+1), in units of the variable squared."""

    statistics: ClassVar[tuple[str, ...]] = ("power",)
    bins: ClassVar[tuple[str, ...]] = ("zonal_wavenumber",)

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Power and cross power of each row, averaged over members: (B,*E,H,W//2+1)."""
        members, g = forecast.shape[1], coefficients(truth)
        power, mean = torch.zeros_like(g.real), torch.zeros_like(g)
        for m in range(members):
            f = coefficients(forecast[:, m])
            power += _squared(f) / members
            mean += f / members
        cross = mean * g.conj()
        every = {"power": power, "truth_power": _squared(g)}
        every |= {"real": cross.real, "imaginary": cross.imag}
        return {name: every[name] for name in self.statistics}

    def gathered(self, fields: Sums, truth: Tensor, weight: Tensor) -> Sums:
        """Row-weighted sums."""
        rows = row_weights(weight)
        found = {name: _row_sum(field, rows) for name, field in fields.items()}
        return {"weight": rows.sum(-1).expand(truth.shape[:-2]), **found}


@EVALUATORS.register("spectrum_ratio")
class SpectrumRatio(Spectrum):
    """Power of the members over power of the truth, (*E,W//2+1); 1 is right."""

    statistics: ClassVar[tuple[str, ...]] = ("power", "truth_power")

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Ratio of the means."""
        return means["power"] / means["truth_power"]


@EVALUATORS.register("coherence")
class Coherence(Spectrum):
    """Squared coherence of members and truth, (*E,W//2+1); 1 in phase, 0 unrelated."""

    statistics: ClassVar[tuple[str, ...]] = ("power", "truth_power", "real", "imaginary")

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Square of the mean cross power over the product of powers."""
        cross = means["real"].square() + means["imaginary"].square()
        return cross / (means["power"] * means["truth_power"])


def _squared(z: Tensor) -> Tensor:
    """|z|^2; without the root that ``abs`` takes."""
    return z.real.square() + z.imag.square()


def _row_sum(power: Tensor, rows: Tensor) -> Tensor:
    """(B,*E,H,K) weighted over rows to (B,*E,K)."""
    weight = rows.expand(power.shape[:-1])[..., None]
    return torch.where(weight > 0, power * weight, 0).sum(-2)
