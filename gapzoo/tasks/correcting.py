"""The correction of a forecaster, from forecasts of an archive."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from gapzoo.data.module import Reader, hours_of
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters import Forecaster
from gapzoo.forecasters.corrected import Corrected, Correction, Fit
from gapzoo.tasks.forecast_error import within_run

FORECASTS = 18000
"""How many a correction is fitted to, where the years have as many."""
BATCH, LATE = 50, 0.2
"""Forecasts at a time; the share of them, the latest, that judges."""


def fit_correction(
    forecaster: Forecaster,
    reader: Reader,
    positions: np.ndarray,
    hours: int,
    basis: ZonalCovariance,
    progress: Callable[[int], object],
) -> tuple[Correction, float]:
    """A forecaster's correction at a lead.

    Args:
        forecaster: not corrected, in the reader's world.
        reader: of an archive.
        positions: steps (N,) of the training years, in order of time.
        hours: lead.
        basis: covariance in whose modes it acts.
        progress: called with the number of forecasts made.

    Returns:
        See ``Fit.solve``.
    """
    count, archive = min(FORECASTS, len(positions)), reader.archive
    rows = positions[np.linspace(0, len(positions) - 1, count).astype(int)]
    fit, plain, late = Fit(basis), Corrected(forecaster, {}), rows[int((1 - LATE) * count)]
    for part in np.array_split(rows, -(-count // BATCH)):
        kept = within_run(archive, part, hours // hours_of(archive))
        if len(kept):
            _add(fit, plain, reader, kept, hours, part[0] >= late)
        progress(len(part))
    return fit.solve()


def _add(
    fit: Fit, forecaster: Corrected, reader: Reader, rows: np.ndarray, hours: int, late: bool
) -> None:
    """Forecasts from steps, none drawn at random, counted."""
    times, seas = list(reader.archive.times[rows]), list(reader.forcing(rows))
    start, truth = reader.state(rows), reader.state(rows + hours // hours_of(reader.archive))
    nobody = [None] * len(rows)
    each = forecaster.steps(list(start.split(1)), times, hours, seas, nobody)  # type: ignore[arg-type]
    forecast = torch.cat(each)
    fit.add(forecast, truth, start, forecaster.flow(forecast, start, times, hours), late)
