"""The climatological covariance, homogeneous along longitude: EOFs for each zonal wavenumber.

With X_m (C*H complex) the m-th zonal Fourier coefficients of a normalised state, all channels and
latitudes together,

    E[X_m X_m^H] = E_m diag(lambda_m) E_m^H,        E[X_m X_n^H] = 0 for m != n

It knows the vertical structure, geostrophy (through the phases), the latitudes' own scales, and no
longitude from another. EOFs of a variance below a threshold are left out; the directions left out
of one wavenumber share one small variance, its tail: at the truncation of a spectral model it is
smaller by orders of magnitude than at the longest waves; a draw with the mean of both is too rough.

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
from gapzoo.diffusion.modes import along, analysed, on_grid, waves_of

FLOOR = 1e-7
"""Smallest variance of a mode or a tail."""


class ZonalCovariance(CovarianceOperator):
    """Diagonal in zonal Fourier modes times their EOFs; acts on states (B,C,H,W).

    Args:
        vectors: one (C*H, R_m) complex orthonormal matrix for each m = 0, 1, ...
        eigenvalues: (sum of R_m + W//2+1,) variances of their coefficients, then the tails'; or
            (sum of R_m + 1,) with one tail for all wavenumbers.
        shape: (C, H, W).
    """

    def __init__(
        self, vectors: Sequence[Tensor], eigenvalues: Tensor, shape: tuple[int, int, int]
    ) -> None:
        if len(vectors) != shape[2] // 2 + 1:
            raise GapzooError(f"{len(vectors)} zonal wavenumbers for {shape[2]} longitudes")
        self.ranks = [v.shape[1] for v in vectors]
        if len(eigenvalues) - sum(self.ranks) not in (1, len(vectors)):
            raise GapzooError(
                "eigenvalues must be one a vector, then those of the tails, "
                f"1 or {len(vectors)}; here are {len(eigenvalues)} for {sum(self.ranks)} vectors"
            )
        self.vectors, self.shape = [v.to(torch.complex64) for v in vectors], shape
        self.eigenvalues = _checked(eigenvalues.float())
        self._moved: dict[torch.device, list[Tensor]] = {}
        self._moved_shares: dict[torch.device, Tensor] = {}

    def vectors_for(self, like: Tensor) -> list[Tensor]:
        """The vectors where a tensor is; to another device they are copied once, for all copies."""
        if like.device == self.vectors[0].device:
            return self.vectors
        if like.device not in self._moved:
            self._moved[like.device] = [v.to(like.device) for v in self.vectors]
        return self._moved[like.device]

    @classmethod
    def fit(
        cls, states: Iterable[Tensor], threshold: float = 1e-2, rest: float = 1.0
    ) -> ZonalCovariance:
        """From batches of normalised states (N,C,H,W) whose mean is zero.

        Args:
            states: batches, read once, in order.
            threshold: smallest variance of an EOF that is kept.
            rest: largest share of a wavenumber's variance that its tail may hold; smaller EOFs
                are kept until it does not hold more.
        """
        total, count, shape = _products(states)
        return cls._decompose(map(_eigen, total / count), (threshold, rest), shape)

    @classmethod
    def cross_validated(
        cls, parts: Sequence[Iterable[Tensor]], threshold: float = 1e-2, rest: float = 1.0
    ) -> ZonalCovariance:
        """EOFs of all parts, with the variances that EOFs have in states they were not fitted to.

        In-sample eigenvalues of small EOFs are too small by half and more. Here the n-th one of a
        wavenumber has the mean variance, over the parts, of a part's states along the n-th EOF of
        the other parts (cross-validated eigenvalues; Bartz 2016, arXiv 1611.00798).

        Args:
            parts: at least two sets of batches as in ``fit``, far apart in time.
            threshold, rest: as in ``fit``.
        """
        if len(parts) < 2:
            raise GapzooError("cross-validation takes at least 2 parts")
        sums = [_products(part) for part in parts]
        total, count = torch.stack([p for p, _, _ in sums]).sum(0), sum(n for _, n, _ in sums)

        def spectrum(m: int) -> tuple[Tensor, Tensor]:
            found = [_variance(p[m], _eigen(total[m] - p[m])[1]) / n for p, n, _ in sums]
            return torch.stack(found).mean(0), _eigen(total[m] / count)[1]

        return cls._decompose(map(spectrum, range(len(total))), (threshold, rest), sums[0][2])

    @classmethod
    def _decompose(
        cls,
        spectra: Iterable[tuple[Tensor, Tensor]],
        cut: tuple[float, float],
        shape: tuple[int, int, int],
    ) -> ZonalCovariance:
        vectors, values, tails = [], [], []
        for level, basis in spectra:
            keep = _kept(level, *cut)
            vectors.append(basis[:, keep])
            values.append(level[keep])
            left = level[~keep].clamp(min=0)
            tails.append(left.mean() if len(left) else level.min())
        tail = torch.stack(tails).clamp(min=FLOOR)
        return cls(vectors, torch.cat([*values, tail]), shape)

    def of(self, errors: Tensor) -> Self:
        """The covariance of errors (N,C,H,W), their mean not subtracted, in the same basis."""
        found = self.products(errors, errors).clamp(min=FLOOR)
        return self.with_eigenvalues(found.to(self.eigenvalues))

    def products(self, a: Tensor, b: Tensor) -> Tensor:
        """Means of Re(a b*) over states (N,C,H,W): of each mode, then of a tail's direction."""
        inside, rest, sizes = [], [], []
        for x, y, e in zip(waves_of(a), waves_of(b), self.vectors_for(a), strict=True):
            e = e.to(x)
            p, q = along(x, e), along(y, e)
            inside.append((p * q.conj()).real.mean(0))
            rest.append(((x - p @ e.T) * (y - q @ e.T).conj()).real.mean(0).sum())
            sizes.append(e.shape[0] - e.shape[1])
        total, size = torch.stack(rest), torch.tensor(sizes)
        if self.tail_count == 1:
            total, size = total.sum(0, keepdim=True), size.sum(0, keepdim=True)
        return torch.cat([*inside, total / size.clamp(min=1).to(total)])

    @property
    def tail_count(self) -> int:
        """1, or one a wavenumber."""
        return len(self.eigenvalues) - sum(self.ranks)

    def tails(self, gains: Tensor) -> Tensor:
        """The wavenumbers' tails (..., W//2+1) in gains of all modes (..., len(eigenvalues))."""
        return gains[..., sum(self.ranks) :].expand(*gains.shape[:-1], len(self.vectors))

    def above(self, least: float) -> list[Tensor]:
        """Which EOFs of each wavenumber have a variance of ``least`` or more, (R_m,) each."""
        return [v >= least for v in self.eigenvalues[: sum(self.ranks)].split(self.ranks)]

    def folded(
        self, values: Tensor, keep: Sequence[Tensor], weights: Tensor | None = None
    ) -> Tensor:
        """Values of all modes for fewer of them, each tail's last.

        Args:
            values: (len(eigenvalues),).
            keep: which EOFs of each wavenumber stay; the others join its tail, whose value is the
                mean over its directions.
            weights: of that mean, as ``values``; alike where None.
        """
        weights = torch.ones_like(values) if weights is None else weights
        inside = [v[: sum(self.ranks)].split(self.ranks) for v in (values, weights)]
        tails = zip(self.tails(values), self.tails(weights), self.vectors, strict=True)
        kept, rest = [], []
        for v, w, k, (tail, weight, e) in zip(*inside, keep, tails, strict=True):
            every = weight * (e.shape[0] - e.shape[1])
            size = w[~k].sum() + every
            total = (w * v)[~k].sum() + every * tail
            kept.append(v[k])
            rest.append(total / size if size > 0 else tail)
        return torch.cat([*kept, torch.stack(rest)])

    def merged(self, keep: Sequence[Tensor]) -> ZonalCovariance:
        """The same variance by wavenumber in fewer EOFs: cheaper by as much (``folded``)."""
        vectors = [e[:, k].contiguous() for e, k in zip(self.vectors, keep, strict=True)]
        return ZonalCovariance(vectors, self.folded(self.eigenvalues, keep), self.shape)

    def same_basis(self, other: CovarianceOperator) -> bool:
        """Whether the vectors are the same objects or the same numbers."""
        if not isinstance(other, ZonalCovariance) or self.ranks != other.ranks:
            return False
        if self.tail_count != other.tail_count:
            return False
        pairs = zip(self.vectors, other.vectors, strict=True)
        return all(a is b or torch.equal(a, b) for a, b in pairs)

    def analyse(self, v: Tensor) -> Tensor:
        """(B, sum of R_m) complex coefficients of v (B,C,H,W); the tail's are not among them."""
        return analysed(self, v)[0].inside

    def synthesise(self, coefficients: Tensor, like: Tensor) -> Tensor:
        """State (B,C,H,W) of the coefficients."""
        parts = zip(coefficients.split(self.ranks, 1), self.vectors_for(like), strict=True)
        return on_grid([c @ e.T.to(c) for c, e in parts], self.shape)

    def filter(self, v: Tensor, gain: Callable[..., Tensor], *scalars: Tensor) -> Tensor:
        """``g_tail v + E (g - g_tail) E^H v`` by wavenumber; scalars are () or one a member."""
        gains = self.gains(gain, *[s.to(device=v.device, dtype=v.dtype) for s in scalars], like=v)
        return analysed(self, v)[0].times(gains).grid()

    def gains(
        self, gain: Callable[..., Tensor], *scalars: Tensor, like: Tensor | None = None
    ) -> Tensor:
        """(1 or S, len(eigenvalues)): a gain of all modes; scalars are () or (S,).

        Args:
            gain: of the eigenvalues and scalars.
            like: whose device and type the gains have; the first scalar's where None.
        """
        first = next(iter(scalars), self.eigenvalues) if like is None else like
        values = self.eigenvalues.to(device=first.device, dtype=first.dtype)
        return _rows(gain(values, *[s.reshape(-1, 1) for s in scalars]), values)

    def point_variance(self, gain: Callable[..., Tensor], *scalars: Tensor) -> Tensor:
        """Variance of ``Q diag(gain) Q^T`` by channel, area unweighted: (S, C).

        Args:
            gain: of the eigenvalues and scalars (S,).
        """
        device = scalars[0].device if scalars else self.eigenvalues.device
        values = self.eigenvalues.to(device)
        columns = [s.reshape(-1, 1).to(values) for s in scalars]
        gains = _rows(gain(values, *columns), values)
        share, tails = self._shares(device), self.tails(gains)
        inside, ranks = gains[:, : sum(self.ranks)], torch.tensor(self.ranks, device=gains.device)
        above = (inside - tails.repeat_interleave(ranks, 1)) @ share
        return (tails @ self.weights.to(gains))[:, None] / self.shape[2] + above

    def between_channels(self, values: Tensor) -> Tensor:
        """(H,C,C) covariance between the channels at a point of each row.

        Args:
            values: (len(eigenvalues),) variances of the modes, the tails' last.
        """
        channels, height, width = self.shape
        found = values.new_zeros(height, channels, channels)
        inside, tails = values[: sum(self.ranks)].split(self.ranks), self.tails(values)
        each = zip(self.weights.tolist(), self.vectors_for(values), inside, tails, strict=True)
        for twice, e, own, tail in each:
            parts = torch.cat([e.real, e.imag], 1).to(values)
            at = parts.unflatten(0, (channels, height)).transpose(0, 1)
            power = (twice / width) * (own - tail).repeat(2)
            found += (at * power) @ at.mT
            found.diagonal(dim1=1, dim2=2).add_(twice / width * tail)
        return found

    @property
    def weights(self) -> Tensor:
        """(W//2+1,) how often each wavenumber counts: those with a conjugate twice."""
        width = self.shape[2]
        return torch.tensor([1.0 if m in (0, width / 2) else 2.0 for m in range(width // 2 + 1)])

    @property
    def often(self) -> Tensor:
        """(sum of R_m,) the same of each mode; the tails are left out."""
        return self.weights.repeat_interleave(torch.tensor(self.ranks))

    def _shares(self, device: torch.device) -> Tensor:
        """(sum of R_m, C): what one unit of a mode's variance adds to each channel's mean."""
        if device not in self._moved_shares:
            channels, height, width = self.shape
            rows = []
            for twice, e in zip(self.weights, self.vectors, strict=True):
                power = e.abs().square().unflatten(0, (channels, height)).sum(1)
                rows.append(twice * power.T / (height * width))
            self._moved_shares[device] = torch.cat(rows).to(device)
        return self._moved_shares[device]

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
        eigenvalues: P's, the tails' last.
        gain: g, alike.
        persistence: the truth's own correlation over the lead, alike, where it is known.
        forced: share of the prior's mean under the forcing that is added to g f, alike; None is
            nothing. No checkpoint keeps it.
        recurrence: correlation of the errors of successive steps, alike, where it is known.
    """

    def __init__(
        self,
        climatology: ZonalCovariance,
        eigenvalues: Tensor,
        gain: Tensor,
        persistence: Tensor | None = None,
        forced: Tensor | None = None,
        recurrence: Tensor | None = None,
    ) -> None:
        super().__init__(climatology.vectors, eigenvalues, climatology.shape)
        self._moved = climatology._moved
        self.gain, self.persistence = gain, persistence
        self.forced, self.recurrence = forced, recurrence

    def parts(self) -> dict[str, Tensor]:
        """What is known of the modes, by the names that a checkpoint has for it."""
        found = {"zonal": self.eigenvalues, "gain": self.gain, "persistence": self.persistence}
        found["recurrence"] = self.recurrence
        return {name: part for name, part in found.items() if part is not None}


def _products(states: Iterable[Tensor]) -> tuple[Tensor, int, tuple[int, int, int]]:
    """Sums of X_m X_m^H (W//2+1, C*H, C*H), the number of states, and their shape."""
    total, count, shape = None, 0, (0, 0, 0)
    for batch in states:
        modes = waves_of(batch)
        product = modes.transpose(1, 2) @ modes.conj()
        total = product if total is None else total.add_(product)
        count, shape = count + len(batch), tuple(batch.shape[1:])  # type: ignore[assignment]
    if total is None:
        raise GapzooError("no states to take a covariance from")
    return total, count, shape


def _kept(level: Tensor, threshold: float, rest: float) -> Tensor:
    """Which variances (N,) are above a threshold, or among those that hold all but the rest."""
    ordered, order = level.clamp(min=0).sort(descending=True)
    before = ordered.cumsum(0) - ordered
    most = torch.zeros_like(level, dtype=torch.bool)
    most[order] = before < (1 - rest) * ordered.sum()
    return (level > threshold) | (most & (level > FLOOR))


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.eigh(matrix)


def _variance(product: Tensor, basis: Tensor) -> Tensor:
    """Diagonal of E^H P E."""
    return (basis.conj() * (product @ basis)).sum(0).real


def _rows(gains: Tensor, values: Tensor) -> Tensor:
    """(1 or S, len(values)): gains of all modes, also where a gain is alike for all of them."""
    return (gains + torch.zeros_like(values)).reshape(-1, len(values))
