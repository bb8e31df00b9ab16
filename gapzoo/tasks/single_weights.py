"""What one evaluation of a prior makes of forecasts, measured on truths."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.module import Reader, hours_of
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.samplers.single import SingleSampler
from gapzoo.diffusion.single import Evaluation, SingleWeights
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters.base import Forecaster
from gapzoo.tasks.forecast_error import likelihood, within_run


def single_weights(
    prior: Prior,
    forecaster: Forecaster,
    error: ZonalCovariance,
    reader: Reader,
    positions: np.ndarray,
    hours: int,
    generator: MemberGenerator,
    progress: Callable[[int], None] | None = None,
) -> SingleWeights:
    """Weights of the sampler ``single`` for roll-outs of a prior by a forecaster.

    Args:
        prior: around its climatology.
        forecaster: of steps of ``hours``; of one that draws, two draws from each position.
        error: P that its forecasts, or draws, have as a constraint, in the climatology's modes.
        reader: of an archive, in the prior's world.
        positions: steps to start from, in years that neither was trained on; those whose target
            lies in another run are left out.
        hours: lead.
        generator: of one member; each position has a stream of its own.
        progress: called with 1 after each forecast.

    Raises:
        GapzooError: for a prior without a climatology, or errors in other modes.
    """
    climatology = getattr(prior.denoiser, "climatology", None)
    if not isinstance(climatology, ZonalCovariance) or not climatology.same_basis(error):
        raise GapzooError("weights of a single evaluation need errors in the modes of the prior")
    archive, ahead = reader.archive, hours // hours_of(reader.archive)
    positions = within_run(archive, positions, ahead)

    def evaluations() -> Iterator[Evaluation]:
        for position in positions:
            here = np.array([position])
            forcing, time = reader.forcing(here)[0], archive.times[position]
            condition, draws = reader.condition(here + ahead), []
            streams = generator.fork("single", int(position))
            for number in range(2 if forecaster.stochastic else 1):
                own = streams.fork("forecast", number)
                forecast = forecaster.step(reader.state(here), time, hours, forcing, own)
                constraint = likelihood(forecast, error, climatology)
                draws.append(SingleSampler(prior.given(forecast=constraint, forcing=condition)))
            yield evaluation(draws[0], draws[-1], reader.state(here + ahead), streams)
            if progress:
                progress(1)

    left = climatology.eigenvalues.minimum(error.eigenvalues)
    return SingleWeights.fit(evaluations(), climatology.with_eigenvalues(left))


@torch.no_grad()
def evaluation(
    first: SingleSampler, second: SingleSampler, truth: torch.Tensor, generator: MemberGenerator
) -> Evaluation:
    """Of the posteriors of two draws, or twice the same, whose truth (1,C,H,W) is known."""
    means, aparts, unknowns = [], [], []
    for number, sampler in enumerate((first, second)):
        t = torch.tensor(sampler.start, dtype=truth.dtype)
        noise = generator.fork("noise", number).randn(truth.shape)
        apart, unknown = sampler.evaluated(sampler.begin(noise, t), t)
        means.append(sampler.reference.mean.to(truth).expand_as(truth))
        aparts.append(apart)
        unknowns.append(unknown)
    return Evaluation(truth, *((pair[0], pair[1]) for pair in (means, aparts, unknowns)))
