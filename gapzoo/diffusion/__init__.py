"""The diffusion core: schedules, denoisers, loss, samplers, guidance, the prior."""

from gapzoo.diffusion.covariance import (
    CovarianceOperator,
    DenseCovariance,
    DiagonalCovariance,
    SpectralCovariance,
)
from gapzoo.diffusion.denoiser import Denoiser, Posterior, PreconditionedDenoiser
from gapzoo.diffusion.gaussian import GaussianDenoiser
from gapzoo.diffusion.guidance import GUIDANCE, GaussianConstraint, Guidance, Identity
from gapzoo.diffusion.loss import DenoisingLoss, LossValue
from gapzoo.diffusion.prior import GaussianForecast, Prior, RenoisedForecast
from gapzoo.diffusion.samplers import SAMPLERS, Sampler
from gapzoo.diffusion.schedules import SCHEDULES, Schedule

__all__ = [
    "GUIDANCE",
    "SAMPLERS",
    "SCHEDULES",
    "CovarianceOperator",
    "Denoiser",
    "DenoisingLoss",
    "DenseCovariance",
    "DiagonalCovariance",
    "GaussianConstraint",
    "GaussianDenoiser",
    "GaussianForecast",
    "Guidance",
    "Identity",
    "LossValue",
    "Posterior",
    "PreconditionedDenoiser",
    "Prior",
    "RenoisedForecast",
    "Sampler",
    "Schedule",
    "SpectralCovariance",
]
