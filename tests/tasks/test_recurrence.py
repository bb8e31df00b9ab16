"""Errors that recur: measured, drawn, and without a change of the climate."""

import dataclasses
from itertools import islice

import pandas as pd
import pytest
import torch
from linear import SCHEDULE, START, H, W, toy

from gapzoo.core import MemberGenerator
from gapzoo.core.random import MixedGenerator
from gapzoo.diffusion import GaussianDenoiser
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.forecasters.trivial import Persistence
from gapzoo.tasks import Sampling
from gapzoo.tasks.forecast_error import later_gain, merged
from gapzoo.tasks.recurrence import MOST, recurrence, recurring
from gapzoo.tasks.rollout import Rollout, Start

UNKNOWN, RHO = 0.4, 0.35
"""u and rho."""
ONE = Sampling(sampler="exponential", steps=1, sampler_options={"highest": 1.0})


def white(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 1, H, W, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def climate() -> ZonalCovariance:
    """Modes of variances 0.1 to 1, none left to a tail."""
    g = torch.Generator().manual_seed(0)
    bases = [torch.linalg.qr(torch.randn(H, H, generator=g))[0] for _ in range(W // 2 + 1)]
    values = torch.linspace(1.0, 0.1, H * (W // 2 + 1))
    return ZonalCovariance(bases, torch.cat([values, torch.ones(1)]), (1, H, W))


def errors(climate: ZonalCovariance, rho: float | None = RHO) -> RegressedErrors:
    level = climate.eigenvalues
    known = None if rho is None else torch.full_like(level, rho)
    gain = torch.full_like(level, (1 - UNKNOWN) ** 0.5)
    return RegressedErrors(climate, UNKNOWN * level, gain, recurrence=known)


def modes(climate: ZonalCovariance, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Means of a b* over members, of each mode, over its variance."""
    return (climate.products(a, b) / climate.eigenvalues)[: sum(climate.ranks)]


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.25, 0.45, 0.8])
def test_correlations_that_are_known_are_found(climate, rho):
    first = climate.filter(white(6000, 1), lambda b: b.sqrt())
    fresh = climate.filter(white(6000, 2), lambda b: b.sqrt())
    second = rho * first + (1 - rho**2) ** 0.5 * fresh
    found = recurrence(first, second, climate)[: sum(climate.ranks)]
    assert (found - min(max(rho, 0.0), MOST)).abs().max() < 0.04


def test_mixed_noises_are_standard_normal_and_go_together_as_wanted(climate):
    z = [white(8000, seed) for seed in (1, 2, 3)]
    mixed = recurring(errors(climate))

    def mix(now, before):
        return mixed.mix(now, before).grid()

    one, two = mix(z[1], z[0]), mix(z[2], z[1])
    plain = climate.with_eigenvalues(torch.ones_like(climate.eigenvalues))
    assert (modes(plain, one, one) - 1).abs().max() < 0.06
    assert (modes(plain, one, two) - RHO).abs().max() < 0.04
    assert modes(plain, mix(z[0], z[1]), two).abs().max() < RHO  # b b: the wrong order is not it
    assert recurring(errors(climate, None)) is None and recurring(None) is None


def run(climate, members: int, **changes) -> Rollout:
    world = toy().world
    denoiser = GaussianDenoiser(torch.zeros(1, H, W), climate, SCHEDULE)
    denoiser.climatology = climate
    settings = {"prior": Prior(denoiser), "sampling": ONE, "error": errors(climate)} | changes
    return Rollout(forecaster=Persistence(world), world=world, hours=24, **settings)


def carried(roll: Rollout, climate, count: int = 3000) -> list[torch.Tensor]:
    x = climate.filter(white(count, 9), lambda b: b.sqrt())
    return [state for _, state in islice(roll.run(x, START, MemberGenerator(3, count)), 12)]


def test_the_climate_keeps_its_variance_though_errors_recur(climate):
    """A linear forecaster: variance L, lag correlation k g + rho u; without k it is 1 + 2 g rho."""
    g = (1 - UNKNOWN) ** 0.5
    *_, before, last = carried(run(climate, 1), climate)
    assert (modes(climate, last, last) - 1).abs().mean() < 0.03
    k = later_gain(errors(climate), climate)[0]
    known = float(k) * g + RHO * UNKNOWN
    assert (modes(climate, last, before) - known).abs().mean() < 0.03
    free = dataclasses.replace(run(climate, 1), error=errors(climate, None))
    *_, before, last = carried(free, climate)
    assert (modes(climate, last, last) - 1).abs().mean() < 0.03
    assert (modes(climate, last, before) - g).abs().mean() < 0.03


def test_the_first_step_of_a_run_has_the_whole_gain(climate):
    """Nothing went before it: the mean is g f, later k g f."""
    roll, x = run(climate, 1), climate.filter(white(1, 4), lambda b: b.sqrt())
    generator = MemberGenerator(0, 4000)
    many = x.expand(4000, -1, -1, -1)
    _, first = next(roll.run(many, START, generator))
    earlier = START - pd.Timedelta(days=3)
    _, later = next(roll.run(many, START, generator, first=earlier))
    k = float(later_gain(errors(climate), climate)[0])
    g = (1 - UNKNOWN) ** 0.5
    assert (first.mean(0) - g * x[0]).abs().max() < 0.06
    torch.testing.assert_close(first - later, (1 - k) * g * many, rtol=1e-3, atol=1e-3)


def test_a_run_taken_up_again_has_the_noise_of_before(climate):
    roll, x = run(climate, 1), white(3, 5)
    whole = list(islice(roll.run(x, START, MemberGenerator(4, 3)), 6))
    time, middle = whole[2]
    again = roll.run(middle, time, MemberGenerator(4, 3), first=START)
    for (old_time, old), (new_time, new) in zip(whole[3:], islice(again, 3), strict=True):
        assert old_time == new_time and torch.equal(old, new)


class Noisy(Persistence):
    """Keeps the noise that it is given."""

    stochastic = True

    def __init__(self, world) -> None:
        super().__init__(world)
        self.drawn: list[torch.Tensor] = []

    def step(self, state, time, hours, forcing=None, generator=None):
        self.drawn.append(generator.randn((len(state), 3)))
        return state


def test_a_forecaster_that_draws_has_noise_that_recurs_too(climate):
    """Standard normal, of the modes' correlation from step to step, in a restart as well."""
    model, count, x = Noisy(toy().world), 4000, white(4000, 5)
    roll = dataclasses.replace(run(climate, 1), forecaster=model)
    whole = list(islice(roll.run(x, START, MemberGenerator(4, count)), 3))
    first, second, third = model.drawn
    assert second.var() == pytest.approx(1, abs=0.05)
    for one, other, wanted in ((first, second, RHO), (second, third, RHO), (first, third, 0)):
        assert (one * other).mean() == pytest.approx(wanted, abs=0.03)
    next(roll.run(whole[1][1], whole[1][0], MemberGenerator(4, count), first=START))
    assert torch.equal(model.drawn[-1], third)
    plain = dataclasses.replace(roll, error=errors(climate, None))
    list(islice(plain.run(x, START, MemberGenerator(4, count)), 2))
    assert (model.drawn[-1] * model.drawn[-2]).mean() == pytest.approx(0, abs=0.03)


def test_members_of_several_starts_have_their_own_noise_in_any_batch(climate):
    """One of them in the middle of its run, chunks of two members."""
    roll = run(climate, 1, sampling=dataclasses.replace(ONE, batch=2))
    later = START + pd.Timedelta(days=40)
    starts = [
        Start(white(3, 6), START, MemberGenerator(1, 3)),
        Start(white(2, 7), later, MemberGenerator(2, 2), None, START),
    ]
    together = [list(islice(roll.frames(starts), 3))[-1][i].state for i in range(2)]
    alone = [list(islice(roll.frames([s]), 3))[-1][0].state for s in starts]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_fewer_modes_keep_the_recurrence(climate):
    _, error = merged(errors(climate), climate, 0.5)
    torch.testing.assert_close(error.recurrence, torch.full_like(error.recurrence, RHO))


def test_generators_of_other_members_are_not_mixed():
    with pytest.raises(ValueError, match="members"):
        MixedGenerator(MemberGenerator(0, 2), MemberGenerator(0, 3), torch.add)
