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
    """Weights of the sampler ``single`` for roll-outs of a prior by a deterministic forecaster.

    Args:
        prior: around its climatology.
        forecaster: of steps of ``hours``.
        error: P of its errors, in the climatology's modes.
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
            forecast = forecaster.step(reader.state(here), time, hours, forcing)
            constraint = likelihood(forecast, error, climatology)
            posterior = prior.given(forecast=constraint, forcing=reader.condition(here + ahead))
            sampler = SingleSampler(posterior)
            streams = generator.fork("single", int(position))
            yield evaluation(sampler, reader.state(here + ahead), streams)
            if progress:
                progress(1)

    left = climatology.eigenvalues.minimum(error.eigenvalues)
    return SingleWeights.fit(evaluations(), climatology.with_eigenvalues(left), climatology)


@torch.no_grad()
def evaluation(
    sampler: SingleSampler, truth: torch.Tensor, generator: MemberGenerator
) -> Evaluation:
    """Two evaluations of one posterior whose truth (1,C,H,W) is known."""
    t = torch.tensor(sampler.start, dtype=truth.dtype)
    noises = [generator.fork("noise", i).randn(truth.shape) for i in range(2)]
    found = [sampler.evaluated(sampler.begin(noise, t), t) for noise in noises]
    apart, unknown = zip(*found, strict=True)
    return Evaluation(truth, sampler.reference.mean.to(truth), apart, unknown)
