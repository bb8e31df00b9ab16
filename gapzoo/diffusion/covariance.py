"""Covariances that are diagonal in an orthonormal basis Q: ``Cov = Q diag(eigenvalues) Q^T``.

The basis may be the grid points themselves (``DiagonalCovariance``), zonal Fourier modes, with or
without cosines in latitude (``SpectralCovariance``), or eigenvectors (``DenseCovariance``, for
small states). Every function of a covariance, alone or together with multiples of the identity, is
then a gain on the coefficients, and that is all that observation errors, forecast errors,
climatologies and exact Gaussian denoisers need.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from gapzoo.core import GapzooError


class CovarianceOperator(abc.ABC):
    """A symmetric positive covariance that acts on batches (B, ...) of states or observations."""

    eigenvalues: Tensor
    """Variances of the coefficients, broadcastable to ``analyse(v)``."""

    @abc.abstractmethod
    def analyse(self, v: Tensor) -> Tensor:
        """``Q^T v``: the coefficients (B, ...) of v (B, ...)."""

    @abc.abstractmethod
    def synthesise(self, coefficients: Tensor, like: Tensor) -> Tensor:
        """``Q c``, shaped as ``like``."""

    def same_basis(self, other: CovarianceOperator) -> bool:
        """Whether the eigenvalues of both belong to the same basis."""
        return type(self) is type(other)

    def with_eigenvalues(self, eigenvalues: Tensor) -> Self:
        """Another covariance in the same basis."""
        other = copy.copy(self)
        other.eigenvalues = _checked(eigenvalues)
        return other

    def filter(self, v: Tensor, gain: Callable[..., Tensor], *scalars: Tensor) -> Tensor:
        """``Q diag(gain(eigenvalues, *scalars)) Q^T v``; each scalar is () or one a member."""
        coefficients = self.analyse(v)
        shape = (-1, *[1] * (coefficients.ndim - 1))
        values = self.eigenvalues.to(device=v.device, dtype=v.dtype)
        columns = [s.to(values).reshape(shape) for s in scalars]
        return self.synthesise(gain(values, *columns) * coefficients, v)

    def apply(self, v: Tensor) -> Tensor:
        """``Cov v``, shaped as v (B, ...)."""
        return self.filter(v, lambda b: b)

    def inverse(self, v: Tensor) -> Tensor:
        """``Cov^-1 v``, shaped as v (B, ...)."""
        return self.filter(v, lambda b: 1 / b)

    def sample(self, noise: Tensor) -> Tensor:
        """``Cov^(1/2) noise``: N(0, Cov) from standard normal noise (B, ...)."""
        return self.filter(noise, torch.sqrt)


class DiagonalCovariance(CovarianceOperator):
    """Independent errors.

    Args:
        variance: a number, or a tensor that broadcasts against what it acts on.
    """

    def __init__(self, variance: float | Tensor) -> None:
        self.eigenvalues = _checked(torch.as_tensor(variance, dtype=torch.float32))

    def analyse(self, v: Tensor) -> Tensor:
        """v itself."""
        return v

    def synthesise(self, coefficients: Tensor, like: Tensor) -> Tensor:
        """The coefficients themselves."""
        return coefficients.expand_as(like)


class SpectralCovariance(CovarianceOperator):
    """Errors correlated along longitude, and along latitude if asked.

    Args:
        variance: (C,H,W//2+1) expected ``|rfft(x, norm="ortho")|^2`` by channel, latitude and zonal
            wavenumber. With ``meridional`` H counts the modes of an orthonormal cosine transform
            over latitude instead of the latitudes.
        meridional: whether errors of neighbouring latitudes are correlated (then alike in
            variance at all latitudes) or independent (then each latitude has its own spectrum).
    """

    def __init__(self, variance: Tensor, meridional: bool = False) -> None:
        if variance.ndim != 3:
            shape = tuple(variance.shape)
            raise GapzooError(f"spectral variance has shape {shape}; give (C, H, W // 2 + 1)")
        self.eigenvalues, self.meridional = _checked(variance), meridional

    @classmethod
    def estimate(
        cls, errors: Tensor, meridional: bool = False, floor: float = 1e-6
    ) -> SpectralCovariance:
        """From a sample of errors (N,C,H,W), their mean not subtracted; at least ``floor``."""
        power = cls(torch.ones(1, 1, 1), meridional).analyse(errors).abs().square().mean(0)
        return cls(power.clamp(min=floor), meridional)

    def of(self, errors: Tensor) -> SpectralCovariance:
        """The covariance of errors (N,C,H,W) in the same basis."""
        return self.estimate(errors, self.meridional)

    def same_basis(self, other: CovarianceOperator) -> bool:
        """Both spectral, and alike in latitude."""
        return isinstance(other, SpectralCovariance) and self.meridional == other.meridional

    def analyse(self, v: Tensor) -> Tensor:
        """(B,C,H,W//2+1) complex coefficients of v (B,C,H,W)."""
        if self.meridional:
            v = torch.einsum("lh,bchw->bclw", _cosines(v.shape[-2]).to(v), v)
        return torch.fft.rfft(v, norm="ortho")

    def synthesise(self, coefficients: Tensor, like: Tensor) -> Tensor:
        """State (B,C,H,W) of the coefficients."""
        v = torch.fft.irfft(coefficients, n=like.shape[-1], norm="ortho")
        if self.meridional:
            v = torch.einsum("lh,bclw->bchw", _cosines(v.shape[-2]).to(v), v)
        return v


class DenseCovariance(CovarianceOperator):
    """A full matrix over the flattened state; for small ones.

    Args:
        matrix: (N,N) symmetric, positive semi-definite.

    Raises:
        GapzooError: where the matrix is not square, symmetric and positive.
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise GapzooError(f"covariance has shape {tuple(matrix.shape)}; give a square matrix")
        if not torch.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-6):
            raise GapzooError("covariance matrix is not symmetric; symmetrise it first")
        eigenvalues, self.vectors = torch.linalg.eigh(matrix.double())
        rounding = 1e-6 * eigenvalues.abs().max()
        self.eigenvalues = _checked(torch.where(eigenvalues.abs() < rounding, 0.0, eigenvalues))

    def same_basis(self, other: CovarianceOperator) -> bool:
        """Both dense, with the same eigenvectors."""
        return isinstance(other, DenseCovariance) and torch.equal(self.vectors, other.vectors)

    def analyse(self, v: Tensor) -> Tensor:
        """(B,N) coefficients of v (B, ...)."""
        return v.flatten(1) @ self.vectors.to(v)

    def synthesise(self, coefficients: Tensor, like: Tensor) -> Tensor:
        """State shaped as ``like``."""
        return (coefficients @ self.vectors.to(like).T).reshape(like.shape)


def as_covariance(value: float | Tensor | CovarianceOperator) -> CovarianceOperator:
    """An operator as it is; a number or tensor of variances as ``DiagonalCovariance``."""
    return value if isinstance(value, CovarianceOperator) else DiagonalCovariance(value)


def _checked(variance: Tensor) -> Tensor:
    if not torch.isfinite(variance).all() or (variance < 0).any():
        raise GapzooError("a variance is negative or not finite; check the error statistics")
    return variance


def _cosines(size: int) -> Tensor:
    """(size, size) orthonormal cosine transform (DCT-II); row l is mode l."""
    points = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    matrix = torch.cos(torch.arange(size, dtype=torch.float64)[:, None] * points)
    matrix[0] /= math.sqrt(2)
    return matrix * math.sqrt(2 / size)
