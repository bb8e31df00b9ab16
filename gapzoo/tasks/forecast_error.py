"""The forecaster's own errors, and a forecast as a likelihood.

A forecaster trained on squared errors gives the conditional mean: x = f + e with e independent of
f, so that N(f, P) already holds what the climate knows. As a likelihood beside the prior N(0, L)
it must not count the climate twice; the Gaussian likelihood f_l ~ N(x, P_l) whose product with the
prior is N(f, P) is

    P_l^-1 = P^-1 - L^-1,      f_l = P_l P^-1 f

mode by mode in the basis of L, with P at most ``KNOWN`` L.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gapzoo.data.module import Reader
from gapzoo.diffusion.covariance import CovarianceOperator, SpectralCovariance
from gapzoo.diffusion.prior import GaussianForecast
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters.base import Forecaster


def forecast_errors(
    forecaster: Forecaster,
    reader: Reader,
    positions: np.ndarray,
    hours: int,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """(N, C, H, W) normalised errors of forecasts from the archive's own states.

    Args:
        forecaster: to be judged.
        reader: of an archive, in years that the forecaster was not trained on.
        positions: steps to start from; those whose target lies in another run are left out.
        hours: lead.
        progress: called with 1 after each forecast.
    """
    archive, ahead = reader.archive, hours // reader.world.hours
    positions = positions[positions + ahead < len(archive.times)]
    positions = positions[archive.runs[positions] == archive.runs[positions + ahead]]
    errors = []
    for position in positions:
        here = np.array([position])
        time, forcing = archive.times[position], reader.forcing(here)[0]
        forecast = forecaster.step(reader.state(here), time, hours, forcing)
        errors.append(forecast - reader.state(here + ahead))
        if progress:
            progress(1)
    return torch.cat(errors)


def error_covariance(errors: Tensor, inflation: float = 1.0) -> SpectralCovariance:
    """Covariance of errors (N, C, H, W), smoothed over neighbouring latitudes.

    Each channel's variance by latitude and zonal wavenumber is averaged over three latitudes, which
    steadies the estimate from a few hundred forecasts.
    """
    raw = SpectralCovariance.estimate(errors).eigenvalues
    rows = torch.cat([raw[:, :1], raw, raw[:, -1:]], 1)
    smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 3
    return SpectralCovariance(inflation * smooth)


KNOWN = 0.5
"""Largest share of a mode's climatological variance that a forecast's error is taken to have.

Beyond it f_l would amplify a forecast that is not quite a conditional mean: at 0.98 ensembles grew
past the climate's variance within three days (docs/experiments.md)."""


def likelihood(
    forecast: Tensor, error: CovarianceOperator, climatology: CovarianceOperator | None
) -> GaussianForecast:
    """A forecast (M, C, H, W) as a constraint beside the prior.

    Args:
        forecast: normalised.
        error: covariance P of its errors.
        climatology: the prior's covariance L; where it has another basis than P, or is unknown,
            the forecast is taken as it is and the climate counts twice.
    """
    if not isinstance(climatology, ZonalCovariance) or not climatology.same_basis(error):
        return GaussianForecast(forecast, error)
    share = (error.eigenvalues / climatology.eigenvalues).clamp(max=KNOWN)
    mean = climatology.filter(forecast, lambda b: 1 / (1 - share.to(b)))
    return GaussianForecast(mean, error.with_eigenvalues(error.eigenvalues / (1 - share)))
