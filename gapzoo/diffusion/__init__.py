"""The diffusion core: schedules, denoisers, loss, samplers, guidance, the prior."""

from gapzoo.diffusion.denoiser import Denoiser, Posterior, PreconditionedDenoiser
from gapzoo.diffusion.loss import DenoisingLoss, LossValue
from gapzoo.diffusion.samplers import SAMPLERS, Sampler
from gapzoo.diffusion.schedules import SCHEDULES, Schedule

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "Denoiser",
    "DenoisingLoss",
    "LossValue",
    "Posterior",
    "PreconditionedDenoiser",
    "Sampler",
    "Schedule",
]
