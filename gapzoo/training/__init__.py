"""Training: Lightning modules around any backbone, and the loop that trains them."""

from gapzoo.training.convcast import ConvCast
from gapzoo.training.crpscast import CRPSCast
from gapzoo.training.denoisers import MixtureDenoiser, TransformerDenoiser, UNetDenoiser
from gapzoo.training.diffcast import DiffCast
from gapzoo.training.module import DiffusionModule
from gapzoo.training.optimise import Optimisation
from gapzoo.training.train import train

__all__ = [
    "CRPSCast",
    "ConvCast",
    "DiffCast",
    "DiffusionModule",
    "MixtureDenoiser",
    "Optimisation",
    "TransformerDenoiser",
    "UNetDenoiser",
    "train",
]
