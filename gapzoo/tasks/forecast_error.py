"""The forecaster's own errors, and a forecast as a likelihood.

A forecaster trained on squared errors gives the conditional mean: x = f + e with e independent of
f, so that N(f, P) already holds what the climate knows. As a likelihood beside the prior N(0, L)
it must not count the climate twice; the Gaussian likelihood f_l ~ N(x, P_l) whose product with the
prior is N(f, P) is

    P_l^-1 = P^-1 - L^-1,      f_l = P_l P^-1 g f

mode by mode in the basis of L, where g makes f a conditional mean (``mode_errors``). With the
coherence rho^2 = 1 - P / L these are P_l = L (1 - rho^2) / rho^2 and f_l = g f / rho^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from gapzoo.core import GapzooError
from gapzoo.data.archive import Archive
from gapzoo.data.module import Reader, hours_of
from gapzoo.diffusion.covariance import CovarianceOperator, SpectralCovariance
from gapzoo.diffusion.modes import Blend
from gapzoo.diffusion.prior import GaussianForecast, ModalForecast
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.forecasters.base import Forecaster


def within_run(archive: Archive, positions: np.ndarray, ahead: int) -> np.ndarray:
    """Of the steps (N,) those that have one so many steps ahead in their own run."""
    positions = positions[positions + ahead < len(archive.times)]
    return positions[archive.runs[positions] == archive.runs[positions + ahead]]


TOGETHER = 10
"""Forecasts of one batch."""


def forecast_pairs(
    forecaster: Forecaster,
    reader: Reader,
    positions: np.ndarray,
    hours: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Forecasts from the archive's own states, their truths, and those states.

    (N, C, H, W) each, normalised.

    Args:
        forecaster: to be judged.
        reader: of an archive, in years that the forecaster was not trained on.
        positions: steps to start from; those whose target lies in another run are left out.
        hours: lead.
        progress: called with how many forecasts are new.
    """
    archive, ahead = reader.archive, hours // hours_of(reader.archive)
    positions, forecasts = within_run(archive, positions, ahead), []
    for here in np.array_split(positions, -(-len(positions) // TOGETHER)):
        times, states = list(archive.times[here]), reader.state(here)
        seas, nobody = list(reader.forcing(here)), [None] * len(here)
        found = forecaster.steps(list(states.split(1)), times, hours, seas, nobody)  # type: ignore[arg-type]
        forecasts += found
        if progress:
            progress(len(here))
    return torch.cat(forecasts), reader.state(positions + ahead), reader.state(positions)


PAIRS, LEAST_PAIRS = 100, 40
"""Forecasts that a model's errors over a cycle are measured from, and over long leads."""


def added_errors(
    forecaster: Forecaster,
    reader: Reader,
    days: Sequence[str],
    cycle: int,
    hours: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(N, C, H, W), normalised: what a model's own errors add in a cycle.

    Forecasts from truths, less their truths, over the root of the number of cycles in the lead.
    Errors that are new every time have that mean square at any lead; those that go on in one
    direction count as often as there are cycles, as they do where nothing observes them.

    Args:
        forecaster: to be judged.
        reader: of an archive of truths.
        days: first and last, of years that the forecaster was not trained on.
        cycle: hours between analyses.
        hours: lead; ``cycle`` where 0. PAIRS forecasts of that, fewer of longer ones.
        progress: called with how many forecasts are new, and how many there are.

    Raises:
        GapzooError: where the lead is no number of cycles, or the archive has none of the days.
    """
    every, hours = reader.archive.indices(days[0], days[1]), hours or cycle
    if hours % cycle:
        raise GapzooError(f"errors over {hours} h; give a multiple of the cycle's {cycle} h")
    count = max(LEAST_PAIRS, PAIRS * cycle // hours)
    rows = every[np.linspace(0, len(every) - 1, count).astype(int)]
    done = (lambda n: progress(n, len(rows))) if progress else None
    forecasts, truths, _ = forecast_pairs(forecaster, reader, rows, hours, done)
    return (forecasts - truths) / (hours / cycle) ** 0.5


def error_covariance(errors: Tensor, inflation: float = 1.0) -> SpectralCovariance:
    """Covariance of errors (N, C, H, W), smoothed over neighbouring latitudes.

    Each channel's variance by latitude and zonal wavenumber is averaged over three latitudes, which
    steadies the estimate from a few hundred forecasts.
    """
    raw = SpectralCovariance.estimate(errors).eigenvalues
    rows = torch.cat([raw[:, :1], raw, raw[:, -1:]], 1)
    smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 3
    return SpectralCovariance(inflation * smooth)


def mode_errors(
    forecasts: Tensor,
    truths: Tensor,
    climatology: ZonalCovariance,
    starts: Tensor | None = None,
) -> RegressedErrors:
    """Errors of the regressed forecast in the climatology's modes, and the regression's gains.

    In each mode the truth x is regressed on the forecast f (model output statistics):

        g = <x f> / <f f>,      rho^2 = <x f>^2 / (<f f> <x x>),      P = (1 - rho^2) L

    with averages over forecasts and over the real and imaginary part. A tail of
    the climatology is one mode.

    Args:
        forecasts: (N, C, H, W) normalised.
        truths: (N, C, H, W), what they forecast.
        climatology: L.
        starts: (N, C, H, W) where the forecasts started; gives the modes' persistence.
    """
    sums = [climatology.products(forecasts, v) for v in (truths, forecasts)]
    both, own = sums[0].clamp(min=0), sums[1].clamp(min=1e-12)
    power = climatology.products(truths, truths).clamp(min=1e-12)
    unknown = (1 - both**2 / (own * power)).clamp(1e-4, 1.0)
    kept = None
    if starts is not None:
        before = climatology.products(starts, starts).clamp(min=1e-12)
        kept = climatology.products(starts, truths) / (before * power).sqrt()
    return RegressedErrors(climatology, unknown * climatology.eigenvalues, both / own, kept)


WIDEST = 0.98
"""Share of the climate's variance above which an ensemble's own tells nothing more."""
NEIGHBOURS = 12
"""Modes of like variance on either side that share a relative variance: few members know little."""


def mean_errors(
    members: Tensor, error: ZonalCovariance, climatology: ZonalCovariance
) -> RegressedErrors:
    """Errors of the mean of an ensemble in the climatology's modes, and its gains.

    Of M members with the variance B the mean m misses the truth, one more draw, by B + B / M, and
    by the static error S that they do not hold. In a climate of variance L, with P = B + S below L,

        <x m> = L - P,   <m m> = L - P + B / M,   g = <x m> / <m m>,   error L - g (L - P),

    so that a mean of members as wide as the climate is damped, not trusted.

    Args:
        members: (M, C, H, W) normalised.
        error: S, in the modes of ``climatology``; a forecaster's own gains scale its members.
        climatology: L.
    """
    count, level = len(members), climatology.eigenvalues
    scale = error.gain if isinstance(error, RegressedErrors) else torch.ones_like(level)
    spread = climatology.of(members - members.mean(0, keepdim=True)).eigenvalues * scale**2
    own = shared(spread * (count / max(count - 1, 1)) / level, climatology.ranks) * level
    unknown = torch.minimum(own + error.eigenvalues, WIDEST * level)
    known = level - unknown
    gain = known / (known + torch.minimum(own, unknown) / count)
    return RegressedErrors(climatology, level - gain * known, gain * scale)


def shared(ratio: Tensor, ranks: list[int]) -> Tensor:
    """Running means of values (len(eigenvalues),) over the modes of each wavenumber.

    The tails' values, the last, stay as they are.
    """
    width = 2 * NEIGHBOURS + 1
    parts = ratio[: sum(ranks)].split(ranks)
    means = [
        avg_pool1d(part[None], width, 1, NEIGHBOURS, count_include_pad=False)[0]
        for part in parts
        if len(part)
    ]
    return torch.cat([*means, ratio[sum(ranks) :]])


def forgetting(
    error: CovarianceOperator, climatology: CovarianceOperator | None, hours: int, memory: float
) -> RegressedErrors:
    """The errors where no mode remembers for longer than ``memory`` days, for long roll-outs.

    A mode that hardly changes in a step has so small an error that a forecaster's drift in it is
    never called back. With k = exp(-hours / (24 memory)), the regression's gain g and the share u
    of a mode's variance that a step leaves unknown,

        u >= 1 - k^2      where the climate itself remembers for longer,
        g <= k            everywhere; what is beyond it, up to g = 1, goes to ``forced``,

    the share of the prior's mean under the forcing that takes the place of what is forgotten. So a
    forecaster that drifts by b a step ends at most b / (1 - k) off that mean, not off the climate:
    a warm sea stays warm. What the climate forgets by itself (by its persistence: weather and
    passing waves, however well forecast) keeps its errors.

    Args:
        error: P, in the modes of ``climatology``; all are slow where it knows no persistence.
        climatology: L.
        hours: length of a step.
        memory: longest time in which a mode falls to 1/e of itself, days.

    Raises:
        GapzooError: for a memory of no length, and where the errors are not in modes of a
            climatology.
    """
    if memory <= 0:
        raise GapzooError(f"memory {memory:g} days; give more than 0, such as 100")
    if not isinstance(climatology, ZonalCovariance) or not climatology.same_basis(error):
        raise GapzooError(
            "'memory' needs a prior with a climatological covariance and errors in its modes; "
            "leave it out"
        )
    level, left = climatology.eigenvalues, math.exp(-hours / (24 * memory))
    regressed = error if isinstance(error, RegressedErrors) else None
    gain = torch.ones_like(level) if regressed is None else regressed.gain.clamp(max=1.0)
    kept = torch.ones_like(level)
    if regressed is not None and regressed.persistence is not None:
        kept = regressed.persistence
    least = torch.where(kept > left, 1 - left**2, 0.0)
    unknown = torch.maximum(error.eigenvalues / level, least).clamp(max=1.0)
    bound = gain.clamp(max=left)
    again = None if regressed is None else regressed.recurrence
    return RegressedErrors(
        climatology, unknown * level, bound, forced=gain - bound, recurrence=again
    )


def merged(
    error: CovarianceOperator, climatology: CovarianceOperator | None, least: float
) -> tuple[ZonalCovariance, ZonalCovariance]:
    """Climatology and errors with the EOFs of less variance than ``least`` in their tails.

    Most EOFs hold next to nothing of the variance, and every filter goes through all of them. In a
    tail errors have the mean of those that join it; gains and what goes with them have it weighted
    by the climate's variance.

    Args:
        error: P, in the modes of ``climatology``.
        climatology: L.
        least: variance of a mode, normalised.

    Raises:
        GapzooError: where the errors are not in modes of a climatology.
    """
    if not isinstance(climatology, ZonalCovariance) or not climatology.same_basis(error):
        raise GapzooError(
            "'merge' needs a prior with a climatological covariance and errors in its modes; "
            "leave it out"
        )
    keep, level = climatology.above(least), climatology.eigenvalues
    fewer = climatology.merged(keep)
    values = climatology.folded(error.eigenvalues, keep)
    if not isinstance(error, RegressedErrors):
        return fewer, fewer.with_eigenvalues(values)
    every = (error.gain, error.persistence, error.forced, error.recurrence)
    parts = [None if v is None else climatology.folded(v, keep, level) for v in every]
    return fewer, RegressedErrors(fewer, values, *parts)  # type: ignore[arg-type]


LEAST = 0.02
"""Coherence rho^2 below which a mode's forecast is not amplified any further."""


LARGEST = 0.99
"""Share u of a mode's variance beyond which its gain is as for this."""


def later_gain(error: RegressedErrors, climatology: ZonalCovariance) -> Tensor:
    """k of each mode (len(eigenvalues),), see ``gapzoo.tasks.recurrence``; 1 without recurrence."""
    unknown = (error.eigenvalues / climatology.eigenvalues).clamp(max=LARGEST)
    rho = torch.zeros_like(unknown) if error.recurrence is None else error.recurrence
    half = rho * unknown / (1 - unknown).sqrt()
    return (half**2 + 1).sqrt() - half


def likelihood(
    forecast: Tensor,
    error: CovarianceOperator,
    climatology: CovarianceOperator | None,
    centre: Tensor | None = None,
    again: Tensor | None = None,
) -> GaussianForecast:
    """A forecast (M, C, H, W) as a constraint beside the prior, on the grid.

    Args: as of ``modal_likelihood``.
    """
    found = modal_likelihood(forecast, error, climatology, centre, again)
    if isinstance(found, GaussianForecast):
        return found
    return GaussianForecast(found.blend.grid(), found.covariance)


def modal_likelihood(
    forecast: Tensor,
    error: CovarianceOperator,
    climatology: CovarianceOperator | None,
    centre: Tensor | None = None,
    again: Tensor | None = None,
) -> GaussianForecast | ModalForecast:
    """A forecast (M, C, H, W) as a constraint beside the prior, a sum yet to be computed.

    Args:
        forecast: normalised.
        error: covariance P of its errors; g is 1 where it is not a ``RegressedErrors``.
        climatology: the prior's covariance L; where it has another basis than P, or is unknown,
            the forecast is taken as it is and the climate counts twice.
        centre: (M or 1, C, H, W) the prior's mean under the forcing, of which ``error.forced`` is
            added to g f.
        again: (M,) 1 where the errors of a step before this one are still felt, else 0.
    """
    if not isinstance(climatology, ZonalCovariance) or not climatology.same_basis(error):
        return GaussianForecast(forecast, error)
    coherence = (1 - error.eigenvalues / climatology.eigenvalues).clamp(min=LEAST)
    regressed = error if isinstance(error, RegressedErrors) else None
    factor = (1.0 if regressed is None else regressed.gain) / coherence
    gains = factor[None]
    if again is not None and regressed is not None and regressed.recurrence is not None:
        less = factor * (1 - later_gain(regressed, climatology))
        gains = factor - again.to(factor)[:, None] * less
    parts = [(forecast, gains.to(forecast))]
    forced = None if regressed is None else regressed.forced
    if centre is not None and forced is not None:
        parts.append((centre, (forced / coherence).to(forecast)))
    scaled = climatology.eigenvalues * (1 - coherence) / coherence
    blend = Blend(climatology, tuple(parts))
    return ModalForecast(blend, error.with_eigenvalues(scaled))  # type: ignore[arg-type]
