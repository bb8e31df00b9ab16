"""Dry mass: against the metric of the same name, known by hand, held by the sampler."""

import numpy as np
import pandas as pd
import pytest
import torch
from linear import EXACT, SCHEDULE, START, Linear, Probe, toy
from models import toy_forecaster
from worlds import expect, flat_world, toy_archive

from gapzoo.core import Channels, GapzooError, MemberGenerator
from gapzoo.core.climatology import Climatology
from gapzoo.core.world import World
from gapzoo.diffusion import GaussianConstraint, GaussianDenoiser
from gapzoo.diffusion.covariance import SpectralCovariance
from gapzoo.diffusion.prior import Prior
from gapzoo.evaluators.conservation import GRAVITY, DryMass
from gapzoo.tasks import Sampling
from gapzoo.tasks.conserve import DryPressure, conserved
from gapzoo.tasks.rollout import Rollout

LABELS = [f"specific_humidity@{s}" for s in (0.25, 0.75)] + ["surface_pressure"]


@pytest.fixture
def moist() -> World:
    """Two layers of humidity near 4 and 10 g/kg under 1000 hPa."""
    flat = flat_world(channels=3)
    height, width = flat.grid.shape
    mean = np.array([0.004, 0.010, 1e5])[None, :, None, None]
    variance = np.array([1e-6, 4e-6, 250000.0])[None, :, None, None]
    fields = [
        np.broadcast_to(x, (1, 3, height, width)).astype(np.float32) for x in (mean, variance)
    ]
    arguments = {f: getattr(flat, f) for f in flat.__dataclass_fields__}
    arguments |= {"channels": Channels(LABELS, "sigma"), "climatology": Climatology(*fields)}
    return World(**arguments)


def test_it_is_pressure_less_the_weight_of_vapour(moist):
    """Layers of half the mass: p_d = p (1 - (q1 + q2) / 2)."""
    state = moist.mean(pd.DatetimeIndex([START]))
    assert abs(float(DryPressure(moist)(state)) - 1e5 * (1 - 0.007)) < 0.01
    assert abs(DryPressure(moist).climate - 99300) < 0.01
    dry = flat_world()
    with expect(GapzooError, "has no 'surface_pressure'"):
        DryPressure(dry)


def test_it_agrees_with_the_metric(moist):
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, 2, *moist.shape, generator=g)
    physical = moist.denormalise(z, pd.DatetimeIndex([START]))[0]
    metric = DryMass(moist.grid.area_weights, channels=moist.channels)
    metric.update(physical[None, :1], physical[None, 1])
    first, second = DryPressure(moist)(physical).tolist()
    assert abs(float(metric.compute()) * GRAVITY - (first - second)) < 0.05


def rollout(world, error, **options):
    """A forecaster that adds 3 hPa a step, weakly believed, under a wide prior."""

    class Swelling(Linear):
        def step(self, state, time, hours, forcing=None, generator=None):
            return state + torch.tensor([0.0, 0.0, 0.6])[:, None, None]

    width = world.grid.shape[1]
    climate = SpectralCovariance(torch.ones(3, world.grid.shape[0], width // 2 + 1))
    denoiser = GaussianDenoiser(torch.zeros(world.shape), climate, SCHEDULE)
    return Rollout(
        forecaster=Swelling(world),
        world=world,
        prior=Prior(denoiser),
        error=climate.with_eigenvalues(0.05 * climate.eigenvalues),
        sampling=Sampling(steps=24, guidance="mmps", guidance_options={"iterations": 3}),
        observe=error and conserved(world, error),
        **options,
    )


def test_the_sampler_holds_it(moist):
    """Free, the mass grows; observed with an error of 5 Pa it stays, and the rest is as before."""
    state = torch.zeros(4, *moist.shape)
    mass, target = DryPressure(moist), DryPressure(moist).climate
    then = pd.DatetimeIndex([START + pd.Timedelta(hours=24)])

    def departure(error):
        run = rollout(moist, error).run(state, START, MemberGenerator(0, 4))
        found = next(run)[1]
        return mass(moist.denormalise(found[None], then)[0]) - target, found

    free, loose = departure(None)
    held, kept = departure(5.0)
    assert free.mean() > 100
    assert held.abs().max() < 25
    humidity = kept[:, :2].std() / loose[:, :2].std()
    assert 0.9 < humidity < 1.1


def test_the_target_may_be_another_and_errors_positive(moist):
    observed = conserved(moist, 10.0, target=99000.0)(pd.DatetimeIndex([START] * 2))
    z = torch.zeros(2, *moist.shape)
    assert torch.allclose(observed.operator(z), torch.full((2, 1), 30.0), atol=0.01)
    with expect(GapzooError, "must be positive"):
        conserved(moist, 0.0)


def test_a_world_without_humidity_holds_its_surface_pressure(tmp_path):
    world = toy_forecaster(toy_archive(tmp_path / "a.zarr", end="1979-12-31")).world
    state = world.mean(pd.DatetimeIndex([START]))
    mean = (state[0, -1] * torch.from_numpy(world.grid.area_weights)[:, None]).mean()
    assert abs(float(DryPressure(world)(state)) - float(mean)) < 0.1


def test_an_exact_constraint_is_met_to_the_time_step_s_error():
    """In the linear world: the mean over the globe, observed without error."""
    world = toy()
    x = torch.randn(1, 1, 2, 4, generator=torch.Generator().manual_seed(0))

    def observe(times):
        def mean(z):
            return z.flatten(1).mean(1, keepdim=True)

        return GaussianConstraint(mean, torch.full((1, 1), 0.5), 1e-6)

    roll = Rollout(
        forecaster=world.forecaster, world=world.world, prior=world.prior, error=None,
        start_sigma=5.0, sampling=EXACT, observe=observe,
    )  # fmt: skip
    _, drawn = next(roll.run(x, START, Probe(torch.zeros(1, 8))))
    assert abs(float(drawn.mean()) - 0.5) < 0.01
