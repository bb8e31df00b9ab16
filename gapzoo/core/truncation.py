"""Where the states of a spectral model live: fields of few spherical harmonics.

A model of triangular truncation N keeps zonal wavenumbers m <= N and, as dynamical cores do with
the Laplacian's range in mind, total wavenumbers n <= N + 1. Scalars are sums of such harmonics
P_n^m e^{im lambda}; winds are those of a stream function and a velocity potential that are,

    u = -d psi / d phi + (1 / cos phi) d chi / d lambda
    v = (1 / cos phi) d psi / d lambda + d chi / d phi

A Gaussian grid holds many more fields than these: at m = N two of its latitudes' worth of numbers
are the model's, all others are not. A state that is known to come from such a model, as every
state of an archive of it, lies in that space, and its best estimate does too. The projection is
orthogonal in area, so a projected field is nowhere further from any field of the model's, in the
root mean square over the sphere.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import sph_legendre_p_all
from torch import Tensor, nn

from gapzoo.core.channels import Channel
from gapzoo.core.errors import GapzooError
from gapzoo.core.grid import Grid
from gapzoo.core.world import World

PRESSURE = "surface_pressure"
WINDS = ("u_component_of_wind", "v_component_of_wind")
SCALARS = ("temperature", "specific_humidity", PRESSURE)


class TriangularTruncation(nn.Module):
    """Projects fields on a Gaussian grid onto those of a spectral model.

    Args:
        grid: Gaussian latitudes, longitudes from any meridian on.
        truncation: N.

    Raises:
        GapzooError: where the latitudes are not Gaussian or the grid is too coarse for N.
    """

    def __init__(self, grid: Grid, truncation: int) -> None:
        super().__init__()
        weights = _gaussian_weights(grid)
        if weights is None or not _fine(grid, truncation):
            raise GapzooError(
                f"a grid of {grid.shape[0]} x {grid.shape[1]} points does not hold truncation "
                f"{truncation}; it must be Gaussian with more than twice as many longitudes"
            )
        latitude = np.deg2rad(np.asarray(grid.latitude))
        legendre = sph_legendre_p_all(truncation + 1, truncation, np.pi / 2 - latitude, diff_n=1)
        scalar, wind = [], []
        for m in range(truncation + 1):
            orders = range(m, truncation + 2)
            value, slope = (np.stack([p[n, m] for n in orders], 1) for p in legendre)
            scalar.append(_projection(value, weights))
            wind.append(_projection(_winds(value, -slope, m, latitude), np.tile(weights, 2)))
        for name, each in (("scalar", scalar), ("wind", wind)):
            matrices = torch.from_numpy(np.stack(each)).to(torch.complex64)
            self.register_buffer(name, matrices, persistent=False)
        self.scalar: Tensor
        self.wind: Tensor

    def scalars(self, fields: Tensor) -> Tensor:
        """Scalar fields (..., C, H, W)."""
        return _apply(self.scalar, fields)

    def winds(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Eastward and northward wind (..., C, H, W)."""
        east, north = _apply(self.wind, torch.cat([u, v], -2)).chunk(2, -2)
        return east, north


class Truncated(nn.Module):
    """Projects a world's normalised states onto those of the spectral model that made it.

    Winds, temperature and humidity are projected as anomalies in SI units; surface pressure,
    whose logarithm the model carries, over its climatological mean, which leaves a thousandth of
    its spread.

    Args:
        world: of the states; of a known truncation.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        assert world.truncation is not None
        self.space = TriangularTruncation(world.grid, world.truncation)
        scale, channels = world.std.clone(), world.channels
        mean = torch.from_numpy(np.asarray(world.climatology.mean_coefficients[0])).to(scale)
        for position in [i for i, c in enumerate(channels) if c.variable == PRESSURE]:
            scale[position] /= mean[position]
        self.register_buffer("scale", scale, persistent=False)
        self.scale: Tensor
        labels = set(channels.labels)
        east = [c for c in channels if c.variable == WINDS[0]]
        pairs = [(c.label, Channel(WINDS[1], c.level).label) for c in east]
        self.pairs = [(channels.index(u), channels.index(v)) for u, v in pairs if v in labels]
        self.scalars = [i for i, c in enumerate(channels) if c.variable in SCALARS]

    def forward(self, z: Tensor) -> Tensor:
        """Normalised states (..., C, H, W)."""
        physical = z * self.scale
        out = physical.clone()
        if self.scalars:
            out[..., self.scalars, :, :] = self.space.scalars(physical[..., self.scalars, :, :])
        if self.pairs:
            east, north = ([pair[i] for pair in self.pairs] for i in (0, 1))
            winds = self.space.winds(physical[..., east, :, :], physical[..., north, :, :])
            out[..., east, :, :], out[..., north, :, :] = winds
        return torch.where(physical == out, z, out / self.scale)


def truncated(world: World) -> Truncated | None:
    """For worlds of a spectral model on a Gaussian grid that holds its fields; None for others."""
    if world.truncation is None or _gaussian_weights(world.grid) is None:
        return None
    return Truncated(world) if _fine(world.grid, world.truncation) else None


def _fine(grid: Grid, truncation: int) -> bool:
    """Whether the grid has the rows and columns that the harmonics need."""
    height, width = grid.shape
    return truncation + 2 <= height and 2 * truncation + 2 <= width


def _gaussian_weights(grid: Grid) -> np.ndarray | None:
    """(H,) quadrature weights of a Gaussian grid, latitudes in any order; None of another."""
    nodes, weights = np.polynomial.legendre.leggauss(grid.shape[0])
    sine = np.sin(np.deg2rad(np.asarray(grid.latitude)))
    if not np.allclose(np.sort(sine), nodes, atol=1e-5):
        return None
    return weights if sine[0] < sine[-1] else weights[::-1]


def _winds(value: np.ndarray, slope: np.ndarray, m: int, latitude: np.ndarray) -> np.ndarray:
    """(2 H, 2 n) complex: u above v of each stream function, then of each potential."""
    along = 1j * m * value / np.cos(latitude)[:, None]
    columns = np.block([[-slope, along], [along, slope]])
    return columns[:, np.abs(columns).max(0) > 0]  # n = 0 has no wind


def _projection(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The projection onto columns, orthogonal under the weights."""
    root = np.sqrt(weights)[:, None]
    basis, _ = np.linalg.qr(columns * root)
    return (basis @ basis.conj().T) * root.T / root


def _apply(matrices: Tensor, fields: Tensor) -> Tensor:
    """Matrices (M, K, K) on zonal wavenumbers 0 to M - 1 of fields (..., C, K, W); none above.

    One product a wavenumber and state, so that a state's bits do not depend on those beside it.
    """
    waves = torch.fft.rfft(fields.float(), dim=-1)[..., : len(matrices)]
    kept = (matrices @ waves.permute(*range(waves.ndim - 3), -1, -2, -3)).movedim(-3, -1)
    return torch.fft.irfft(kept.transpose(-3, -2), n=fields.shape[-1], dim=-1).to(fields)
