"""LETKF: the local ensemble transform Kalman filter, all grid points at once.

At each point (Hunt et al. 2007, eqs. 20-23), with background anomalies X (M members), seen
anomalies Y = H X, innovation d of the mean and localised precisions rho_n / r_n:

    P = [(M - 1) I + Y R^-1 Y^T]^-1,    w = P Y R^-1 d,    T = [(M - 1) P]^1/2,
    x_a,i = x_mean + X^T (w + T_i).

``inflation`` multiplies X beforehand. ``rotation`` turns T by a random orthogonal matrix that
keeps the mean (Sakov & Oke 2008). Relaxation to prior spread (Whitaker & Hamill 2012, eq. 2)
multiplies the analysis anomalies by 1 + rtps (s_b - s_a) / s_a. Errors may be correlated among
the observations of a place (``Places``): R^-1 is then D R^-1 D, D^2 the taper. Adaptive inflation
estimates the factor a of X^2 at each point from the innovations (Miyoshi 2011, eqs. 6-10).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gapzoo.baselines import BASELINES
from gapzoo.baselines.localisation import Everywhere, Locality
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.places import Places


@BASELINES.register("letkf")
class LETKF:
    """The filter's settings and, with adaptive inflation, its memory.

    Args:
        locality: e.g. ``Sphere(grid, channels, length=7e5, vertical=0.3)``; none if left out.
        inflation: factor on the background anomalies; the first guess if adaptive.
        rtps: relaxation to prior spread, 0 to 1.
        rotation: rotate the analysis anomalies at random.
        adaptive: standard deviation of the persistence of the inflation (0.04 is usual), or 0.
    """

    def __init__(
        self,
        locality: Locality | None = None,
        *,
        inflation: float = 1.0,
        rtps: float = 0.0,
        rotation: bool = False,
        adaptive: float = 0.0,
    ) -> None:
        if inflation <= 0 or not 0 <= rtps <= 1 or adaptive < 0:
            raise GapzooError(
                f"inflation {inflation}, rtps {rtps}, adaptive {adaptive}; "
                "give inflation above 0, rtps within 0 to 1, adaptive from 0"
            )
        self.locality = locality or Everywhere()
        self.inflation, self.rtps, self.rotation = inflation, rtps, rotation
        self.adaptive = adaptive
        self.field: Tensor | None = None
        """(C, H*W) adaptive factors on the covariance, after the first analysis."""

    def analyse(
        self,
        ensemble: Tensor,
        operator: Any,
        y: Tensor,
        errors: Tensor,
        generator: MemberGenerator | None = None,
        places: Places | None = None,
    ) -> Tensor:
        """Analysis (M,C,H,W) of a background (M,C,H,W) and observations (N,).

        ``operator`` may be nonlinear as long as it has ``latitude``, ``longitude`` and
        ``channel``; ``generator`` (M members) serves the rotation. The covariances of ``places``
        are in units of ``errors``, and not for adaptive inflation.
        """
        mean, seen = ensemble.mean(0), operator(ensemble)
        innovation = (y - seen.mean(0)) / errors
        seen = (seen - seen.mean(0)) / errors
        anomalies = (ensemble - mean).flatten(2)
        turn = self._turn(len(ensemble), generator, anomalies)
        analysis = torch.empty_like(anomalies)
        if places is None and not self.adaptive:  # one taper serves all levels of a column
            apart = Places.apart(operator)
            places = apart if len(apart) < len(y) else None
        given = (anomalies.shape[1:], seen, innovation, turn)
        alone = self._weights(operator, *given)
        parts = alone if places is None else self._placed(operator, places, *given)
        for group, tile, weights in parts:
            own = anomalies[:, group][:, :, tile]
            found = torch.einsum("jkt,tji->ikt", own, weights.expand(len(tile), -1, -1))
            analysis[:, group.unsqueeze(-1), tile] = found
        return mean + relaxed(anomalies, analysis, self.rtps).unflatten(2, mean.shape[1:])

    def _weights(
        self, operator: Any, shape: Any, seen: Tensor, innovation: Tensor, turn: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Channels (k,), grid points (T,), weights (T or 1,M,M) with the inflation in them."""
        for group, tile, near, taper in self._blocks(operator, *shape):
            local = taper.to(seen), seen[:, near], innovation[near]
            factor = self._factor(group, tile, shape, *local)
            yield group, tile, factor[:, None, None] * local_weights(*local, factor, turn)

    def _placed(
        self,
        operator: Any,
        places: Places,
        shape: Any,
        seen: Tensor,
        innovation: Tensor,
        turn: Tensor | None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The same with errors correlated at each place."""
        if self.adaptive:
            raise GapzooError("adaptive inflation takes errors as independent; leave it out")
        precision, y, d = places.precision().to(seen), places.of(seen), places.of(innovation)
        groups, grams, drawn = list(self._groups(shape[0])), [], []
        for _, row in groups:
            root = places.of(row[operator.channel.cpu()].sqrt()).to(seen)
            pulled = torch.einsum("msk,sk,skl,sl->msl", y, root, precision, root)
            grams.append(torch.einsum("msl,nsl->smn", pulled, y).flatten(1))
            drawn.append(torch.einsum("msl,sl->sm", pulled, d))
        whole, pull = torch.stack(grams), torch.stack(drawn)
        for tile, near, taper in self.locality.state_tiles(places, shape[1]):
            taper = taper.to(seen)
            gram = (taper @ whole[:, near]).unflatten(-1, (len(seen), -1))
            at = self.inflation * (taper @ pull[:, near])
            weights = self.inflation * transform(self.inflation**2 * gram, at, turn)
            for (group, _), own in zip(groups, weights, strict=True):
                yield group, tile, own

    def _groups(self, channels: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Channels (k,) that share a taper, and it (C,)."""
        between = self.locality.channel_taper
        if between is None:
            yield torch.arange(channels), torch.ones(channels)
            return
        rows, kind = between.unique(dim=0, return_inverse=True)
        for k, row in enumerate(rows):
            yield torch.nonzero(kind == k).squeeze(1), row

    def _blocks(
        self, operator: Any, channels: int, points: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Channels (k,) that share a taper, grid points (T,), observations (n,), taper (T,n)."""
        whole = self.locality.channel_taper is None
        for tile, near, taper in self.locality.state_tiles(operator, points):
            for group, row in self._groups(channels):
                local = taper if whole else taper * row[operator.channel[near].cpu()]
                yield group, tile, near, local

    def _factor(
        self,
        group: Tensor,
        tile: Tensor,
        shape: torch.Size,
        taper: Tensor,
        seen: Tensor,
        innovation: Tensor,
    ) -> Tensor:
        """Inflation of the anomalies, (T,) or (1,); its estimate moves on for the next analysis."""
        if self.adaptive == 0:
            return seen.new_full((1,), self.inflation)
        if self.field is None:
            self.field = seen.new_full(shape, self.inflation**2)
        guess = self.field[group[0], tile]
        moved = adapt(guess, taper, seen, innovation, self.adaptive)
        self.field[group.unsqueeze(-1), tile] = moved
        return guess.sqrt()

    def _turn(self, members: int, generator: MemberGenerator | None, like: Tensor) -> Tensor | None:
        if not self.rotation:
            return None
        if generator is None:
            raise GapzooError("rotation draws random numbers; pass a generator to analyse()")
        return random_rotation(members, generator).to(like)


def relaxed(before: Tensor, after: Tensor, rtps: float) -> Tensor:
    """Members (M,...) with part of the spread back that they had before; their mean stays.

    Relaxation to prior spread (Whitaker & Hamill 2012, eq. 2).
    """
    if rtps == 0:
        return after
    s_b, s_a, mean = before.std(0), after.std(0), after.mean(0)
    return mean + (after - mean) * (1 + rtps * (s_b - s_a) / s_a.clamp(min=1e-12))


def unmoved(before: Tensor, after: Tensor, channels: Sequence[int]) -> Tensor:
    """Members (M,C,H,W) after an analysis, with some channels as they were before it.

    A filter moves what is not observed by what few members have in common. Where observations
    cannot know a channel (humidity in the stratosphere, from sondes), that is noise alone, and
    cycles gather it: variable localisation (Kang et al. 2011, doi:10.1029/2010JD014673).
    """
    if not channels:
        return after
    found = after.clone()
    found[:, list(channels)] = before[:, list(channels)].to(found)
    return found


def local_weights(
    taper: Tensor, seen: Tensor, innovation: Tensor, factor: Tensor, turn: Tensor | None
) -> Tensor:
    """Weights (T,M,M) whose column i makes analysis member i's anomaly from the mean before.

    Args:
        taper: (T,n). seen: (M,n) and innovation (n,), both divided by the errors.
        factor: (T,) or (1,), inflation of the anomalies.
        turn: (M,M) rotation.
    """
    members = len(seen)
    outer = (seen.unsqueeze(1) * seen).flatten(0, 1)
    gram = (taper @ outer.T).unflatten(-1, (members, members)) * factor[:, None, None] ** 2
    drawn = (taper @ (seen * innovation).T) * factor.unsqueeze(-1)
    return transform(gram, drawn, turn)


def transform(gram: Tensor, drawn: Tensor, turn: Tensor | None = None) -> Tensor:
    """Weights (...,M,M) of Y R^-1 Y^T (...,M,M) and Y R^-1 d (...,M); ``turn`` rotates them."""
    members = gram.shape[-1]
    value, vector = torch.linalg.eigh(gram)
    value = value.clamp(min=0) + members - 1
    mean = vector @ ((vector.mT @ drawn.unsqueeze(-1)) / value.unsqueeze(-1))
    root = vector @ (((members - 1) / value).sqrt().unsqueeze(-1) * vector.mT)
    return mean + (root if turn is None else root @ turn)


def adapt(guess: Tensor, taper: Tensor, seen: Tensor, innovation: Tensor, std: float) -> Tensor:
    """The covariance factor (T,) moved towards what the innovations ask for (Miyoshi 2011).

    a_o = (sum rho d^2 - sum rho) / sum rho s^2 with s^2 the seen variance, all in units of the
    errors; its variance 2 / sum rho * ((a s^2 + 1) / s^2)^2; the guess has the variance std^2.
    """
    weight, spread = taper.sum(-1), taper @ seen.var(0)
    asked = (taper @ innovation**2 - weight) / spread.clamp(min=1e-12)
    doubt = 2 / weight.clamp(min=1e-12) * ((guess * spread + weight) / spread.clamp(min=1e-12)) ** 2
    moved = (doubt * guess + std**2 * asked) / (doubt + std**2)
    return torch.where(weight > 0, moved, guess).clamp(0.5, 10.0)


def random_rotation(members: int, generator: MemberGenerator) -> Tensor:
    """(M,M) float64: orthogonal, keeps the vector of ones, otherwise uniformly random."""
    draw = generator.randn((members, members)).double()
    basis = torch.eye(members, dtype=torch.float64)
    basis[:, 0] = 1
    basis = torch.linalg.qr(basis).Q
    q, r = torch.linalg.qr(draw[1:, 1:])
    inner = torch.block_diag(torch.ones(1, 1, dtype=torch.float64), q * r.diagonal().sign())
    return basis @ inner @ basis.T
