"""What forecast, season and simulation share: which networks, how they are put together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from gapzoo.core import GapzooError, nearest
from gapzoo.core.world import World
from gapzoo.diffusion.covariance import SpectralCovariance
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.single import SingleWeights
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters import FORECASTERS
from gapzoo.forecasters.base import Forecaster
from gapzoo.tasks.bounds import HumidityBounds
from gapzoo.tasks.conserve import conserved
from gapzoo.tasks.forecast_error import forgetting, merged
from gapzoo.tasks.rollout import Guard, Rollout
from gapzoo.tasks.sampling import Sampling


class Trained(Protocol):
    """What is used of a checkpoint (``gapzoo.checkpoint.Checkpoint`` is one)."""

    name: str
    world: World
    network: torch.nn.Module

    @property
    def covariance(self) -> Any:
        """Of a prior that was trained around one; else None."""

    @property
    def prior(self) -> Prior:
        """Of a denoiser's checkpoint."""

    def to(self, device: torch.device) -> None:
        """Compute on a device."""

    def forecaster_in(self, world: World, prior: Any = None) -> Forecaster:
        """Of a forecasting network's checkpoint, for states that a world normalises."""

    def error(self, hours: int, basis: Any = None) -> Any:
        """Covariance of a forecaster's errors."""

    def single(self, hours: int) -> SingleWeights | None:
        """Weights of the sampler ``single`` for a forecaster's roll-outs."""


LEAST = 1e-7
"""Of the static error's variances, normalised: forecasts are never exact."""
FORMS = ("gaussian", "renoise")
ONCE = {"sampler": "single", "steps": 1}
"""Sampling by one evaluation of the prior, enough under a forecast's errors alone."""
FEW = {"sampler": "exponential", "steps": 4}
"""Sampling where a conserved quantity is observed besides."""


@dataclass
class RolloutSettings:
    """How states are carried forward; the first keys of every task's recipe.

    Args:
        prior: checkpoint of the prior; empty leaves the forecaster alone.
        forecaster: checkpoint of a forecasting network, or a forecaster that needs none:
            ``speedy``, ``persistence``, ``climatology``.
        hours: length of a step.
        form: of the forecast constraint, ``gaussian`` or ``renoise``.
        start_sigma: noise level of ``renoise``.
        inflation: factor on the forecaster's error variances; None is 1, and ``DRAWN`` of a
            forecaster that draws.
        memory: longest time, in days, that a mode of the climate remembers what it was (for long
            roll-outs, see ``gapzoo.tasks.forecast_error.forgetting``); 0 sets no bound.
        recurrence: draw errors of successive steps that go together, where that was measured (see
            ``gapzoo.tasks.recurrence``).
        merge: modes of the climate of less variance than this (normalised, such as 0.1) share one a
            wavenumber, which is faster; 0 keeps all.
        sampling: of ``gapzoo.tasks.Sampling``: sampler, steps, guidance, batch, ...; where
            nothing is said ``ONCE``, or ``FEW`` with ``dry_mass``.
        guard: largest normalised value before a member is taken back through the prior; 0 is none.
        dry_mass: hold the mass of dry air.
        dry_mass_error: standard deviation with which it is held, Pa.
        saturation: most specific humidity of a state over that of saturated air, none below zero;
            0 lets it be anything. Spectral models such as SPEEDY break such bounds themselves.
        members: of the ensemble.
        seed: of everything.
        device: such as ``cpu`` or ``cuda``.
    """

    prior: str = "unet_small.speedy-t21-v4"
    forecaster: str = "crpscast_small.speedy-t21-v8"
    hours: int = 24
    form: str = "gaussian"
    start_sigma: float = 0.3
    inflation: float | None = None
    memory: float = 0.0
    recurrence: bool = True
    merge: float = 0.0
    sampling: dict[str, Any] = field(default_factory=dict)
    guard: float = 0.0
    dry_mass: bool = False
    dry_mass_error: float = 10.0
    saturation: float = 0.0
    members: int = 8
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise GapzooError(f"forecast form '{self.form}'; {nearest(self.form, FORMS)}")
        if self.members < 1 or self.hours < 1:
            raise GapzooError("'members' and 'hours' must be 1 or more")
        self.sampling = self.sampling or dict(FEW if self.dry_mass else ONCE)
        Sampling.of(self.sampling)
        device_of(self.device)


def rollout_of(
    settings: RolloutSettings, prior: Trained | None, forecaster: Trained | None, world: World
) -> Rollout:
    """The roll-out that settings describe.

    Args:
        settings: see there.
        prior: the loaded checkpoint of ``settings.prior``, or None.
        forecaster: that of ``settings.forecaster``; None builds a forecaster of that name.
        world: of the states, for a forecaster without a checkpoint.
    """
    device, error, own = device_of(settings.device), None, None
    if forecaster is None:
        step = FORECASTERS.build(settings.forecaster, world=world)
    else:
        forecaster.to(device)
        step = forecaster.forecaster_in(world, prior)
    if prior is not None:
        prior.to(device)
        error, own = _error(settings, prior, forecaster, step.stochastic), prior.prior
        if settings.merge:
            fewer, error = merged(error, prior.covariance, settings.merge)
            own = own.around(fewer)
    return Rollout(
        forecaster=step,
        world=world,
        hours=settings.hours,
        prior=own,
        sampling=_sampling(settings, forecaster),
        error=error,
        start_sigma=settings.start_sigma,
        observe=conserved(world, settings.dry_mass_error) if settings.dry_mass else None,
        guard=Guard(limit=settings.guard) if settings.guard else None,
        bounds=HumidityBounds(world, settings.saturation) if settings.saturation else None,
    )


def _sampling(settings: RolloutSettings, forecaster: Trained | None) -> Sampling:
    """With the weights of a single evaluation where a forecaster's were measured."""
    found = Sampling.of(settings.sampling)
    weights = None if forecaster is None else forecaster.single(settings.hours)
    if found.sampler != "single" or weights is None:
        return found
    return replace(found, sampler_options={"weights": weights, **found.sampler_options})


DRAWN = 0.5
"""Share of a forecast's error, known without noise, that is left beside the forecaster's draws.

CRPSCast's own have the other half and more (docs/experiments.md); how much is drawn in the end is
what the weights of ``single`` were measured to be.
"""


def beside(error: Any, draws: bool, factor: float | None = None) -> Any:
    """A forecaster's errors as roll-outs take them: times a factor, by itself 1 or ``DRAWN``."""
    own = DRAWN if draws else 1.0
    return error.with_eigenvalues((own if factor is None else factor) * error.eigenvalues)


def _error(
    settings: RolloutSettings, prior: Trained, forecaster: Trained | None, draws: bool
) -> Any:
    if settings.form == "renoise":
        return None
    if forecaster is None:
        raise GapzooError(
            f"the errors of forecaster '{settings.forecaster}' are not known; use form 'renoise', "
            "or no prior"
        )
    error, own = forecaster.error(settings.hours, prior.covariance), prior.covariance
    if own is not None and not own.same_basis(error):
        raise GapzooError(
            f"the errors of '{forecaster.name}' are not known in the modes of '{prior.name}'; run "
            f"'gapzoo calibrate {settings.forecaster} {settings.prior} --output FOLDER' and name "
            "that folder as the forecaster"
        )
    error = beside(error, draws, settings.inflation)
    if not settings.recurrence:
        error.recurrence = None
    return forgetting(error, own, settings.hours, settings.memory) if settings.memory else error


def require_daily(hours: int) -> None:
    """Refuse steps of which no whole number makes a day: months are compared step by step."""
    if 24 % hours:
        raise GapzooError(f"steps of {hours} h; take one that divides a day, such as 6, 12 or 24")


def device_of(name: str) -> torch.device:
    """A device by name; raises GapzooError for one that is not there."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise GapzooError(f"device '{name}': {str(error).splitlines()[0]}") from None
    return device


def static_error(
    prior: Trained,
    network: Trained | None,
    hours: int,
    inflation: float = 1.0,
    static: float | None = None,
) -> SpectralCovariance | ZonalCovariance:
    """The static part of a forecast's error covariance.

    Args:
        prior: whose basis it is in.
        network: a forecasting network that knows its own errors, or None.
        hours: lead.
        inflation: factor on its variances.
        static: share of the climate's variance that is taken instead, scale by scale.
    """
    if static is None:
        if network is None:
            raise GapzooError("this forecaster knows no error of its own; give static=0.02 or so")
        error = network.error(hours, prior.covariance)
        if prior.covariance is not None and not prior.covariance.same_basis(error):
            raise GapzooError(
                f"errors of '{network.name}' are not known in the modes of '{prior.name}'; run "
                f"'gapzoo calibrate {network.name} {prior.name}', or give static=0.02 or so"
            )
        return error.with_eigenvalues(inflation * error.eigenvalues)
    if prior.covariance is None:
        raise GapzooError(f"'{prior.name}' has no climatological covariance to take a share of")
    values = inflation * static * prior.covariance.eigenvalues
    return prior.covariance.with_eigenvalues(values.clamp(min=LEAST))


def measured_error(prior: Trained, errors: Tensor, inflation: float = 1.0) -> ZonalCovariance:
    """The static error of a model whose errors are known by examples.

    Args:
        prior: whose modes it is in.
        errors: (N, C, H, W) that it adds in a cycle (``added_errors``), normalised as the prior's.
        inflation: factor on the variances.
    """
    basis = prior.covariance
    if basis is None:
        raise GapzooError(f"'{prior.name}' has no modes to measure errors in; give static=")
    found: ZonalCovariance = basis.of(errors)
    return found.with_eigenvalues((inflation * found.eigenvalues).clamp(min=LEAST))
