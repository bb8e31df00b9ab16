"""The forecaster's own errors, by channel, latitude and zonal wavenumber."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gapzoo.data.module import Reader
from gapzoo.diffusion.covariance import SpectralCovariance
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
