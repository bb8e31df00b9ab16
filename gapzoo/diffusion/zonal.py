"""The climatological covariance, homogeneous along longitude: EOFs for each zonal wavenumber.

With X_m (C*H complex) the m-th zonal Fourier coefficients of a normalised state, all channels and
latitudes together,

    E[X_m X_m^H] = E_m diag(lambda_m) E_m^H,        E[X_m X_n^H] = 0 for m != n

It knows the vertical structure, geostrophy (through the phases), the latitudes' own scales, and no
longitude from another. EOFs of a variance below a threshold are left out; all of their directions
share one small variance, ``tail``.

The prior N(0, this) has the Wiener filter as its denoiser: where training is short it is hard to
beat, which is why networks are trained on top of it (``PreconditionedDenoiser``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.covariance import CovarianceOperator, _checked


class ZonalCovariance(CovarianceOperator):
    """Diagonal in zonal Fourier modes times their EOFs; acts on states (B,C,H,W).

    Args:
        vectors: one (C*H, R_m) complex orthonormal matrix for each m = 0, 1, ...
        eigenvalues: (sum of R_m + 1,) variances of their coefficients, then the tail's.
        shape: (C, H, W).
    """

    def __init__(
        self, vectors: Sequence[Tensor], eigenvalues: Tensor, shape: tuple[int, int, int]
    ) -> None:
        if len(vectors) != shape[2] // 2 + 1:
            raise GapzooError(f"{len(vectors)} zonal wavenumbers for {shape[2]} longitudes")
        if len(eigenvalues) != sum(v.shape[1] for v in vectors) + 1:
            raise GapzooError("eigenvalues must be one a vector, then that of the tail")
        self.vectors, self.shape = [v.to(torch.complex64) for v in vectors], shape
        self.eigenvalues = _checked(eigenvalues.float())
        self.ranks = [v.shape[1] for v in vectors]

    @classmethod
    def fit(cls, states: Iterable[Tensor], threshold: float = 1e-2) -> ZonalCovariance:
        """From batches of normalised states (N,C,H,W) whose mean is zero.

        Args:
            states: batches, read once, in order.
            threshold: smallest variance of an EOF that is kept.
        """
        total, count, shape = _products(states)
        return cls._decompose(map(_eigen, total / count), threshold, shape)

    @classmethod
    def cross_validated(
        cls, parts: Sequence[Iterable[Tensor]], threshold: float = 1e-2
    ) -> ZonalCovariance:
        """EOFs of all parts, with the variances that EOFs have in states they were not fitted to.

        In-sample eigenvalues of small EOFs are too small by half and more. Here the n-th one of a
        wavenumber has the mean variance, over the parts, of a part's states along the n-th EOF of
        the other parts (cross-validated eigenvalues; Bartz 2016, arXiv 1611.00798).

        Args:
            parts: at least two sets of batches as in ``fit``, far apart in time.
            threshold: as in ``fit``.
        """
        if len(parts) < 2:
            raise GapzooError("cross-validation takes at least 2 parts")
        sums = [_products(part) for part in parts]
        total, count = torch.stack([p for p, _, _ in sums]).sum(0), sum(n for _, n, _ in sums)

        def spectrum(m: int) -> tuple[Tensor, Tensor]:
            found = [_variance(p[m], _eigen(total[m] - p[m])[1]) / n for p, n, _ in sums]
            return torch.stack(found).mean(0), _eigen(total[m] / count)[1]

        return cls._decompose(map(spectrum, range(len(total))), threshold, sums[0][2])

    @classmethod
    def _decompose(
        cls,
        spectra: Iterable[tuple[Tensor, Tensor]],
        threshold: float,
        shape: tuple[int, int, int],
    ) -> ZonalCovariance:
        vectors, values, dropped = [], [], []
        for level, basis in spectra:
            keep = level > threshold
            vectors.append(basis[:, keep])
            values.append(level[keep])
            dropped.append(level[~keep].clamp(min=0))
        tail = torch.cat(dropped)
        mean = tail.mean() if len(tail) else torch.cat(values).min()
        return cls(vectors, torch.cat([*values, mean.clamp(min=1e-6)[None]]), shape)

    def of(self, errors: Tensor) -> Self:
        """The covariance of errors (N,C,H,W), their mean not subtracted, in the same basis."""
        inside = self.analyse(errors)
        variance = inside.abs().square().mean(0)
        rest = _modes(errors - self.synthesise(inside, errors))
        size = sum(v.shape[0] - v.shape[1] for v in self.vectors)
        tail = rest.abs().square().mean(1).sum() / max(size, 1)
        found = torch.cat([variance, tail[None]]).clamp(min=1e-6)
        return self.with_eigenvalues(found.to(self.eigenvalues))

    def same_basis(self, other: CovarianceOperator) -> bool:
        """Whether the vectors are the same objects or the same numbers."""
        if not isinstance(other, ZonalCovariance) or self.ranks != other.ranks:
            return False
        pairs = zip(self.vectors, other.vectors, strict=True)
        return all(a is b or torch.equal(a, b) for a, b in pairs)

    def analyse(self, v: Tensor) -> Tensor:
        """(B, sum of R_m) complex coefficients of v (B,C,H,W); the tail's are not among them."""
        modes = _modes(v)
        parts = [x @ e.conj().to(x) for x, e in zip(modes, self.vectors, strict=True)]
        return torch.cat(parts, 1)

    def synthesise(self, coefficients: Tensor, like: Tensor) -> Tensor:
        """State (B,C,H,W) of the coefficients."""
        parts = coefficients.split(self.ranks, 1)
        modes = [c @ e.T.to(c) for c, e in zip(parts, self.vectors, strict=True)]
        waves = torch.stack(modes, -1).unflatten(1, self.shape[:2])
        return torch.fft.irfft(waves, n=self.shape[2], norm="ortho")

    def filter(self, v: Tensor, gain: Callable[..., Tensor], *scalars: Tensor) -> Tensor:
        """``g_tail v + E (g - g_tail) E^H v``; each scalar is () or one a member."""
        values = self.eigenvalues.to(device=v.device, dtype=v.dtype)
        gains = _rows(gain(values, *[s.to(values).reshape(-1, 1) for s in scalars]), values)
        tail, inside = gains[:, -1:], gains[:, :-1]
        change = self.synthesise((inside - tail) * self.analyse(v), v)
        return tail[:, :, None, None] * v + change

    def point_variance(self, gain: Callable[..., Tensor], *scalars: Tensor) -> Tensor:
        """Variance of ``Q diag(gain) Q^T`` by channel, area unweighted: (S, C).

        Args:
            gain: of the eigenvalues and scalars (S,).
        """
        columns = [s.reshape(-1, 1).to(self.eigenvalues) for s in scalars]
        gains = _rows(gain(self.eigenvalues, *columns), self.eigenvalues)
        share = self._shares.to(gains)
        inside, tail = gains[:, :-1], gains[:, -1:]
        return tail + (inside - tail) @ share

    @property
    def _shares(self) -> Tensor:
        """(sum of R_m, C): what one unit of a mode's variance adds to each channel's mean."""
        if not hasattr(self, "_cached"):
            channels, height, width = self.shape
            rows = []
            for m, e in enumerate(self.vectors):
                twice = 1.0 if m in (0, width / 2) else 2.0
                power = e.abs().square().unflatten(0, (channels, height)).sum(1)
                rows.append(twice * power.T / (height * width))
            self._cached = torch.cat(rows)
        return self._cached

    def to_tensors(self) -> dict[str, Tensor]:
        """For a checkpoint: vectors as float16 pairs, by wavenumber, and the eigenvalues."""
        pairs = {
            f"covariance.{m}": torch.view_as_real(v).half() for m, v in enumerate(self.vectors)
        }
        return {**pairs, "covariance.eigenvalues": self.eigenvalues}

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, Tensor], shape: tuple[int, int, int]
    ) -> ZonalCovariance:
        """The inverse of ``to_tensors``."""
        count = shape[2] // 2 + 1
        pairs = [tensors[f"covariance.{m}"].float().contiguous() for m in range(count)]
        values = tensors["covariance.eigenvalues"]
        return cls([torch.view_as_complex(p) for p in pairs], values, shape)

    def __deepcopy__(self, memo: dict[int, Any]) -> ZonalCovariance:
        """Copies share the basis: it never changes."""
        return self


class RegressedErrors(ZonalCovariance):
    """Errors P of a forecast after each of its modes was regressed on the truth.

    Args:
        climatology: whose modes these are.
        eigenvalues: P's, the tail's last.
        gain: g, alike.
    """

    def __init__(self, climatology: ZonalCovariance, eigenvalues: Tensor, gain: Tensor) -> None:
        super().__init__(climatology.vectors, eigenvalues, climatology.shape)
        self.gain = gain


def _products(states: Iterable[Tensor]) -> tuple[Tensor, int, tuple[int, int, int]]:
    """Sums of X_m X_m^H (W//2+1, C*H, C*H), the number of states, and their shape."""
    total, count, shape = None, 0, (0, 0, 0)
    for batch in states:
        modes = _modes(batch)
        product = modes.transpose(1, 2) @ modes.conj()
        total = product if total is None else total.add_(product)
        count, shape = count + len(batch), tuple(batch.shape[1:])  # type: ignore[assignment]
    if total is None:
        raise GapzooError("no states to take a covariance from")
    return total, count, shape


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.eigh(matrix)


def _variance(product: Tensor, basis: Tensor) -> Tensor:
    """Diagonal of E^H P E."""
    return (basis.conj() * (product @ basis)).sum(0).real


def _modes(states: Tensor) -> Tensor:
    """(B,C,H,W) to (W//2+1, B, C*H) complex."""
    return torch.fft.rfft(states, norm="ortho").flatten(1, 2).permute(2, 0, 1)


def _rows(gains: Tensor, values: Tensor) -> Tensor:
    """(1 or S, len(values)): gains of all modes, also where a gain is alike for all of them."""
    return (gains + torch.zeros_like(values)).reshape(-1, len(values))
