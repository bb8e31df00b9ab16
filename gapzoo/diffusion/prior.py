"""The one idea: a prior under constraints is a posterior, and both are denoisers.

    posterior = Prior(denoiser).given(observations=..., forecast=..., forcing=...)
    ensemble = SAMPLERS.build("heun", denoiser=posterior)(shape=..., generator=...)

A forecast constrains in one of two forms, never in both (it would count twice):

- RenoisedForecast: sampling starts from ``x_t = alpha f + sigma z`` at the level ``start_sigma``
  instead of pure noise; the forecast's scales above the noise survive, the prior redraws the rest.
- GaussianForecast: ``f ~ N(x, P)``, a constraint like any other, for the whole state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.covariance import CovarianceOperator
from gapzoo.diffusion.denoiser import Denoiser, Posterior, PreconditionedDenoiser
from gapzoo.diffusion.guidance import GUIDANCE, GaussianConstraint, Identity
from gapzoo.diffusion.guidance.constraint import ModalConstraint
from gapzoo.diffusion.modes import Blend, Modes
from gapzoo.diffusion.moments import SecondMoments
from gapzoo.diffusion.reference import Reference
from gapzoo.diffusion.zonal import ZonalCovariance

Constraints = GaussianConstraint | Sequence[GaussianConstraint]


@dataclass(frozen=True)
class RenoisedForecast:
    """Partial re-noising (Meng et al. 2022, arXiv 2108.01073).

    Args:
        state: (B or 1,C,H,W) normalised forecast.
        start_sigma: noise-to-signal ratio at which sampling starts.
    """

    state: Tensor
    start_sigma: float

    def __post_init__(self) -> None:
        _finite(self.state)
        if self.start_sigma <= 0:
            raise GapzooError(f"start_sigma is {self.start_sigma:g}; it must be positive")


@dataclass(frozen=True)
class GaussianForecast:
    """A forecast with Gaussian errors.

    Args:
        mean: (B or 1,C,H,W) normalised forecast.
        covariance: of its errors: an operator, or a variance that broadcasts to (B,C,H,W).
    """

    mean: Tensor
    covariance: float | Tensor | CovarianceOperator

    def __post_init__(self) -> None:
        _finite(self.mean)

    def constraint(self) -> GaussianConstraint:
        """The forecast as an observation of the whole state."""
        return GaussianConstraint(Identity(), self.mean, self.covariance)


@dataclass(frozen=True)
class ModalForecast:
    """A forecast with Gaussian errors that is a sum of filtered states, yet to be computed.

    Args:
        blend: the forecast, normalised.
        covariance: of its errors, in the same basis.
    """

    blend: Blend
    covariance: ZonalCovariance

    def __post_init__(self) -> None:
        for state, _ in self.blend.parts:
            _finite(state)

    def constraint(self) -> ModalConstraint:
        """The forecast as an observation of the whole state."""
        return ModalConstraint(self.blend, self.covariance)


Forecast = RenoisedForecast | GaussianForecast | ModalForecast


class Conditioned(Denoiser):
    """A denoiser with its conditioning bound, and where sampling starts.

    Args:
        denoiser: the prior.
        cond: (B or 1,K,H,W) forcing and static fields, or None.
        start: a state and the time to which it is re-noised, or None.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        cond: Tensor | None = None,
        start: tuple[Tensor, float] | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.cond = denoiser, denoiser.schedule, cond
        self.start = start if start is not None else denoiser.start

    def reference(self) -> Reference | None:
        """The denoiser's own."""
        return self.denoiser.reference()

    @property
    def modal(self) -> ZonalCovariance | None:
        """The denoiser's own."""
        return self.denoiser.modal

    def denoised(self, x: Modes, ratio: Tensor, cond: Tensor | None = None) -> Modes:
        """The denoiser's; ``cond`` given here takes precedence."""
        return self.denoiser.denoised(x, ratio, self.cond if cond is None else cond)

    def begin(self, noise: Tensor, t: Tensor) -> Tensor:
        """The denoiser's own."""
        return self.denoiser.begin(noise, t)

    def finish(self, x: Tensor) -> Tensor:
        """The denoiser's own."""
        return self.denoiser.finish(x)

    def forward(self, x_t: Tensor, t: Tensor, **cond: Any) -> Posterior:
        """The denoiser's posterior; ``cond=`` given here takes precedence."""
        return self.denoiser(x_t, t, **{"cond": self.cond, **cond})


class Prior:
    """The distribution of states that a denoiser has learned.

    Args:
        denoiser: trained, in evaluation mode; with frozen parameters guidance takes less memory.
        moments: what its output lacks of its input, where that was measured.
    """

    def __init__(self, denoiser: Denoiser, moments: SecondMoments | None = None) -> None:
        self.denoiser, self.moments = denoiser, moments

    def given(
        self,
        observations: Constraints | None = None,
        forecast: Forecast | None = None,
        forcing: Tensor | None = None,
        guidance: str | None = None,
        moments: bool | None = None,
        learned: float = 1.0,
        **options: Any,
    ) -> Denoiser:
        """The prior under constraints: a denoiser that any sampler draws from.

        Args:
            observations: one constraint or several.
            forecast: in one form.
            forcing: (B or 1,K,H,W) conditioning of the denoiser.
            guidance: name of the method; None is ``wiener`` where no options are given and the
                denoiser was trained around a climatology, in the basis of the forecast's errors,
                else ``mmps``.
            moments: give the denoiser back what its second moments say that it lacks
                (:mod:`gapzoo.diffusion.moments`); None does so where they were measured.
            learned: share of what the network knows beyond its climatology's Gaussian that is
                used, 0 to 1: a forecast that came from analyses under the same prior holds it.
            options: its arguments, such as ``iterations`` or ``gamma``.

        Raises:
            GapzooError: for a forecast in two forms, an unknown method or option.
        """
        if isinstance(forecast, list | tuple):
            raise GapzooError("the forecast is given in several forms; it would count twice")
        if not isinstance(forecast, Forecast | None):
            kind = type(forecast).__name__
            raise GapzooError(f"forecast is a {kind}; give a RenoisedForecast or GaussianForecast")
        single = isinstance(observations, GaussianConstraint)
        constraints: list[Any] = [observations] if single else list(observations or ())  # type: ignore[arg-type]
        if isinstance(forecast, GaussianForecast | ModalForecast):
            if any(isinstance(c.operator, Identity) for c in constraints):
                raise GapzooError("a whole-state constraint is given besides the forecast")
            constraints.append(forecast.constraint())
        wanted = self.moments is not None if moments is None else moments
        denoiser = self._balanced() if wanted else self.denoiser
        if learned != 1:
            denoiser = self._fading(denoiser, learned)
        bound = Conditioned(denoiser, forcing, self._start(forecast))
        if not constraints:
            return bound
        own = self._climatology(constraints)
        guidance = guidance or ("mmps" if own is None or options else "wiener")
        if guidance in ("mmps", "wiener"):
            options = {"climatology": own, **options}
        return GUIDANCE.build(guidance, denoiser=bound, constraints=constraints, **options)

    def mean(self, forcing: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """E[x | forcing] (B,C,H,W): what the denoiser makes of nothing at the highest noise.

        Where the noise hides all of a state, the mean of what it may be is that of the forcing
        alone. One evaluation; at zero noise input, whose answer is that of the mean over noise.

        Args:
            forcing: (B,K,H,W) conditioning of the denoiser.
            shape: (C,H,W) of a state.
        """
        device = next((p.device for p in self.denoiser.parameters()), forcing.device)
        nothing = torch.zeros(len(forcing), *shape, device=device)
        last = torch.ones((), device=device)
        with torch.no_grad():
            return self.denoiser(nothing, last, cond=forcing.to(device)).mean

    def around(self, climatology: ZonalCovariance) -> Prior:
        """The same prior around another covariance; raises GapzooError where it has none."""
        if not isinstance(self.denoiser, PreconditionedDenoiser):
            raise GapzooError("this prior is around no climatology; it takes no other")
        return Prior(self.denoiser.with_climatology(climatology), self.moments)

    @staticmethod
    def _fading(denoiser: Denoiser, learned: float) -> Denoiser:
        if not isinstance(denoiser, PreconditionedDenoiser):
            raise GapzooError(f"learned {learned}: only of a network around its climatology")
        return denoiser.with_learned(learned)

    def _balanced(self) -> Denoiser:
        if self.moments is None or not isinstance(self.denoiser, PreconditionedDenoiser):
            raise GapzooError(
                "the second moments of this prior were not measured; run 'gapzoo calibrate' on its "
                "checkpoint, or sample with moments=false"
            )
        return self.denoiser.with_moments(self.moments)

    def _climatology(self, constraints: list[GaussianConstraint]) -> CovarianceOperator | None:
        """The denoiser's own covariance, for the solver, where a forecast shares its basis."""
        own: CovarianceOperator | None = getattr(self.denoiser, "climatology", None)
        whole = [c.noise for c in constraints if isinstance(c.operator, Identity)]
        return own if own is not None and all(own.same_basis(n) for n in whole) else None

    def _start(self, forecast: Forecast | None) -> tuple[Tensor, float] | None:
        if not isinstance(forecast, RenoisedForecast):
            return None
        level = torch.tensor(forecast.start_sigma, dtype=torch.float64)
        t = float(self.denoiser.schedule.t_of_sigma(level))
        if t > 1 + 1e-9:
            raise GapzooError(f"start_sigma {float(level):g} is above the schedule's highest level")
        return forecast.state, min(t, 1.0)


def _finite(state: Tensor) -> None:
    if state.ndim != 4 or not torch.isfinite(state).all():
        shape = tuple(state.shape)
        raise GapzooError(f"forecast state {shape} must be (B,C,H,W) and finite")
