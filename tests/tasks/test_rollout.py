"""Roll-outs: powers of a linear forecaster, exact moments with a prior, restarts, runaways."""

import dataclasses
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from linear import (
    CLIMATE,
    ERROR,
    EXACT,
    MEAN_ERROR,
    SCHEDULE,
    SPREAD_ERROR,
    START,
    H,
    N,
    Probe,
    W,
    matrix,
    toy,
)
from scipy.linalg import solve_discrete_lyapunov
from worlds import expect

import gapzoo
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.climatology import Climatology
from gapzoo.core.random import joined
from gapzoo.diffusion import GaussianConstraint, GaussianDenoiser, Posterior
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.tasks import Sampling
from gapzoo.tasks.forced import persisted
from gapzoo.tasks.rollout import Guard, Rollout, Start, Unphysical
from gapzoo.tasks.sampling import NotFinite
from gapzoo.tasks.settings import RolloutSettings, rollout_of


def rollout(world, **changes):
    settings = {"prior": world.prior, "sampling": Sampling(steps=5), "error": ERROR} | changes
    return Rollout(forecaster=world.forecaster, world=world.world, hours=24, **settings)


def state(members=3, seed=0):
    return torch.randn(members, 1, H, W, generator=torch.Generator().manual_seed(seed))


def test_without_a_prior_it_is_the_forecaster_again_and_again():
    world, x = toy(factor=0.5), state()
    roll = rollout(world, prior=None).run(x, START, MemberGenerator(0, 3))
    for n, (time, found) in enumerate(islice(roll, 9), 1):
        assert time == START + pd.Timedelta(days=n)
        assert torch.allclose(found, 0.5**n * x.roll(n, -1), atol=1e-7)


def test_mean_and_covariance_follow_their_exact_recursion():
    """x_(n+1) ~ p(x) N(A x_n; x, P): m' = S P^-1 A m, C' = S + (S P^-1 A) C (S P^-1 A)^T."""
    world = toy()
    a, p = world.forecaster.matrix(), matrix(ERROR)
    s = (matrix(CLIMATE).inverse() + p.inverse()).inverse()
    gain = s @ p.inverse() @ a
    start, roll = state(1), rollout(world, sampling=EXACT)
    still = roll.run(start, START, Probe(torch.zeros(1, N)))
    mean = start.flatten().double()
    for _, found in islice(still, 4):
        mean = gain @ mean
        assert (found.flatten() - mean).abs().max() < 4 * MEAN_ERROR
    spread = start + torch.cat([torch.zeros(1, N), torch.eye(N)]).reshape(-1, 1, H, W)
    _, carried = next(roll.run(spread, START, Probe(torch.zeros(N + 1, N))))
    root = (carried[1:] - carried[:1]).flatten(1).double()
    assert (root.T @ root - gain @ gain.T).abs().max() < 2 * MEAN_ERROR
    fresh = Probe(torch.cat([torch.zeros(1, N), torch.eye(N)]))
    _, drawn = next(roll.run(start.expand(N + 1, -1, -1, -1), START, fresh))
    root = (drawn[1:] - drawn[:1]).flatten(1).double()
    assert (root.T @ root - s).abs().max() < SPREAD_ERROR / 3


@pytest.mark.parametrize("error", [ERROR, None], ids=["gaussian", "renoise"])
@pytest.mark.parametrize("noise", [0.0, 0.2], ids=["deterministic", "stochastic forecaster"])
@pytest.mark.parametrize("constrained", [True, False])
def test_restarted_equals_uninterrupted(error, noise, constrained):
    world = toy(noise=noise)
    settings = {"error": error} | ({} if constrained else {"prior": None})
    forcing = persisted(np.full((1, H, W), 0.1))
    whole = list(
        islice(rollout(world, **settings).run(state(), START, MemberGenerator(4, 3), forcing), 6)
    )
    time, middle = whole[2]
    again = rollout(world, **settings).run(middle, time, MemberGenerator(4, 3), forcing)
    for (old_time, old), (new_time, new) in zip(whole[3:], islice(again, 3), strict=True):
        assert old_time == new_time and torch.equal(old, new)


def test_a_member_alone_equals_itself_among_many():
    world, x = toy(noise=0.1), state(4)
    many = list(islice(rollout(world).run(x, START, MemberGenerator(4, 4)), 4))
    alone = islice(rollout(world).run(x[2:3], START, MemberGenerator(4, [2])), 4)
    for (_, old), (_, new) in zip(many, alone, strict=True):
        assert torch.allclose(old[2], new[0], atol=1e-4)
    assert (many[-1][1][1] - many[-1][1][2]).abs().max() > 0.1


def test_forcing_is_asked_for_at_the_right_times():
    """The forecaster gets that of the start of a step, the prior that of its end."""
    world, asked = toy(), []

    def forcing(times):
        asked.append(times[0])
        return np.full((1, 1, H, W), float(times[0].day))

    x = state(1)
    roll = rollout(world, prior=None).run(x, START, MemberGenerator(0, 1), forcing)
    _, first = next(roll)
    assert torch.allclose(first, 0.9 * x.roll(1, -1) + 1.0, atol=1e-6) and asked == [START]
    asked.clear()
    next(rollout(world).run(x, START, MemberGenerator(0, 1), forcing))
    assert asked == [START, START + pd.Timedelta(days=1)]


def test_a_runaway_stops_with_its_member_channel_and_time():
    world = toy(factor=3.0)
    x = torch.zeros(2, 1, H, W)
    x[1, 0, 1, 3] = 1.0  # 3^4 = 81 > 50 after four days
    roll = rollout(world, prior=None).run(x, START, MemberGenerator(0, 2))
    assert len(list(islice(roll, 3))) == 3
    parts = ("at 1985-03-05 00:00 member 1", "temperature@1 is 81 spreads off", "constrain")
    with expect(GapzooError, *parts):
        next(roll)


def test_a_physical_model_alone_may_go_far_but_not_to_infinity():
    world = toy(factor=3.0)
    own = rollout(world, prior=None)
    own.forecaster.physical = True
    x = torch.zeros(2, 1, H, W)
    x[1, 0, 1, 3] = 1.0
    *_, (_, last) = islice(own.run(x, START, MemberGenerator(0, 2)), 6)
    assert last.max() == pytest.approx(3**6)
    x[1, 0, 1, 3] = torch.nan
    with expect(GapzooError, "member 1", "not finite"):
        next(own.run(x, START, MemberGenerator(0, 2)))


def test_a_state_that_is_not_finite_stops_at_once():
    world = toy()
    x = torch.zeros(2, 1, H, W)
    x[0, 0, 0, 0] = torch.nan
    with expect(GapzooError, "member 0", "temperature@1 is not finite"):
        next(rollout(world, prior=None).run(x, START, MemberGenerator(0, 2)))


def test_a_draw_that_is_not_finite_ends_the_run_by_its_time(monkeypatch):
    def lost(self, *arguments, **named):
        raise NotFinite("members [1] are not finite")

    monkeypatch.setattr(Sampling, "draw", lost)
    with expect(Unphysical, "at 1985-03-02 00:00 members [1]") as caught:
        next(rollout(toy()).run(torch.zeros(2, 1, H, W), START, MemberGenerator(0, 2)))
    assert caught.value.time == START + pd.Timedelta(days=1)


def test_the_prior_holds_what_would_run_away():
    """A forecaster that grows by 5 % a day: 1.05^100 = 131 alone, steady under the prior."""
    world = toy(factor=1.05)
    a, p = world.forecaster.matrix(), matrix(ERROR)
    s = (matrix(CLIMATE).inverse() + p.inverse()).inverse()
    gain = s @ p.inverse() @ a
    steady = torch.from_numpy(solve_discrete_lyapunov(gain.numpy(), s.numpy())).diagonal().mean()
    roll = rollout(world, sampling=Sampling(steps=6)).run(state(8), START, MemberGenerator(0, 8))
    late = torch.stack([found for _, found in islice(roll, 40, 100)])
    assert 0.5 * steady.sqrt() < late.std() and late.abs().max() < 6 * steady.sqrt()
    alone = rollout(world, prior=None).run(state(8), START, MemberGenerator(0, 8))
    with expect(GapzooError, "left the climate"):
        list(islice(alone, 100))


def test_the_climate_is_not_counted_twice():
    """A conditional-mean forecaster, x ~ N(f, P): with the prior's covariance known, so it stays.

    P = (1 - factor^2) L keeps the variance L of the climate from step to step.
    """
    world = toy(factor=0.9)
    g = torch.Generator().manual_seed(0)
    climate = ZonalCovariance.fit([CLIMATE.sample(torch.randn(4000, 1, H, W, generator=g))])
    denoiser = GaussianDenoiser(torch.zeros(1, H, W), climate, SCHEDULE)
    denoiser.climatology = climate
    error = climate.with_eigenvalues((1 - 0.81) * climate.eigenvalues)
    roll = rollout(world, prior=Prior(denoiser), error=error, sampling=EXACT)
    start = state(1)
    noise = Probe(torch.cat([torch.zeros(1, N), torch.eye(N)]))
    _, drawn = next(roll.run(start.expand(N + 1, -1, -1, -1), START, noise))
    mean = world.forecaster.step(start, START, 24)
    assert (drawn[0] - mean[0]).abs().max() < 2 * MEAN_ERROR
    root = (drawn[1:] - drawn[:1]).flatten(1).double()
    known = error.apply(torch.eye(N).reshape(N, 1, H, W)).flatten(1)
    assert (root.T @ root - known).abs().max() < SPREAD_ERROR / 3


class Warmed(GaussianDenoiser):
    """N(m, L) with m the first channel of the conditioning."""

    def forward(self, x_t, t, cond=None):
        m = cond[:, :1]
        alpha, _ = self.scales(x_t, t)
        return Posterior(m + super().forward(x_t - alpha * m, t).mean)


def test_a_share_of_the_mean_under_each_starts_own_forcing_is_added():
    """Prior N(m, L), the forecast's part g f + h m: m' = (1 - rho^2) m + g f + h m."""
    world, left, gain, forced = toy(factor=0.9), 0.04, 0.9, 0.08
    g = torch.Generator().manual_seed(0)
    climate = ZonalCovariance.fit([CLIMATE.sample(torch.randn(4000, 1, H, W, generator=g))])
    denoiser = Warmed(torch.zeros(1, H, W), climate, SCHEDULE)
    denoiser.climatology = climate
    level = climate.eigenvalues
    shares = (torch.full_like(level, gain), None, torch.full_like(level, forced))
    error = RegressedErrors(climate, left * level, *shares)
    roll = rollout(world, prior=Prior(denoiser), error=error, sampling=EXACT)
    still, x = Probe(torch.zeros(1, N)), state(1)
    seas = [persisted(np.full((1, H, W), value)) for value in (1.5, -0.5)]
    frames = next(roll.frames([Start(x, START, still, sea) for sea in seas]))
    later = pd.DatetimeIndex([START + pd.Timedelta(days=1)])
    for frame, sea in zip(frames, seas, strict=True):
        m = world.world.condition(later, sea(later))[:, :1]
        f = world.forecaster.step(x, START, 24, sea(later)[0])
        known = left * m + gain * f + forced * m
        assert (frame.state - known).abs().max() < 2 * MEAN_ERROR


def test_a_restart_has_the_means_that_an_uninterrupted_run_had():
    """They are kept for some days, of a day that the valid time alone decides."""
    world = toy(factor=0.9)
    climate = ZonalCovariance.fit([CLIMATE.sample(torch.randn(400, 1, H, W))])
    denoiser = Warmed(torch.zeros(1, H, W), climate, SCHEDULE)
    denoiser.climatology = climate
    level = climate.eigenvalues
    error = RegressedErrors(climate, 0.1 * level, 0.5 + 0 * level, None, 0.4 + 0 * level)

    def forcing(times):
        days = ((times - START) / pd.Timedelta(days=1)).to_numpy()
        return np.broadcast_to(0.3 * days[:, None, None, None], (len(times), 1, H, W))

    def run(x, time):
        roll = rollout(world, prior=Prior(denoiser), error=error)
        return roll.run(x, time, MemberGenerator(4, 3), forcing)

    whole = list(islice(run(state(), START), 12))
    for cut in (0, 3, 6):
        time, middle = whole[cut]
        for (_, old), (_, new) in zip(whole[cut + 1 :], run(middle, time), strict=False):
            assert torch.equal(old, new)


def test_persisted_forcing_stays():
    anomaly = np.arange(N, dtype=float).reshape(1, H, W)
    times = pd.date_range(START, periods=3)
    assert np.array_equal(persisted(anomaly)(times), np.stack([anomaly] * 3))


def test_a_lead_or_state_that_no_forecaster_takes_is_refused():
    world = toy()
    with expect(GapzooError, "state of shape (1, 1, 4, 2)", "flat"):
        next(rollout(world, prior=None).run(torch.zeros(1, 1, W, H), START, MemberGenerator(0, 1)))
    with expect(GapzooError, "forecast of 0 h"):
        world.forecaster.step(state(), START, 0)


def starts(members=(3, 2), noise=0.1):
    """Two initial times of unlike forcing and size."""
    world = toy(noise=noise)
    made = [
        Start(
            state(n, seed),
            START + pd.Timedelta(days=40 * seed),
            MemberGenerator(seed, n),
            persisted(np.full((1, H, W), 0.2 * seed)),
        )
        for seed, n in enumerate(members)
    ]
    return world, made


@pytest.mark.parametrize("error", [ERROR, None], ids=["gaussian", "renoise"])
def test_initial_times_in_one_batch_equal_each_alone(error):
    world, both = starts()
    roll = rollout(world, error=error)
    together = list(islice(roll.frames(both), 3))
    for n, one in enumerate(both):
        for frames, (alone,) in zip(together, roll.frames([one]), strict=False):
            assert frames[n].time == alone.time and frames[n].lead == alone.lead
            assert torch.allclose(frames[n].state, alone.state, atol=1e-5)


def test_members_of_several_generators_keep_their_streams():
    a, b = MemberGenerator(1, 3), MemberGenerator(2, [7, 5])
    both = joined([MemberGenerator(1, 3), MemberGenerator(2, [7, 5])])
    assert torch.equal(both.randn((5, 2)), torch.cat([a.randn((3, 2)), b.randn((2, 2))]))
    assert both.members == (0, 1, 2, 7, 5)
    parts = both.fork("x").split(2)
    alone = [MemberGenerator(1, [2]).fork("x"), MemberGenerator(2, [7]).fork("x")]
    assert torch.equal(parts[1].rand((2, 4)), torch.cat([g.rand((1, 4)) for g in alone]))


def test_what_is_yielded_is_what_float32_in_si_units_holds():
    """So that a run read back from disk goes on bit for bit, on any normalisation."""
    world = toy()
    uneven = replace_climate(world.world, mean=0.3, variance=7.0)
    roll = Rollout(forecaster=type(world.forecaster)(uneven), world=uneven, hours=24)
    frames = list(islice(roll.frames([Start(state(), START, MemberGenerator(0, 3))]), 6))
    for (frame,) in frames:
        then = pd.DatetimeIndex([frame.time])
        assert torch.equal(frame.state, uneven.normalise(frame.physical[None], then)[0])
    (third,), (last,) = frames[2], frames[-1]
    again = Start(third.state, third.time, MemberGenerator(0, 3))
    *_, (frame,) = islice(roll.frames([again]), 3)
    assert torch.equal(frame.physical, last.physical)


def replace_climate(world, mean, variance):
    shape = world.climatology.mean_coefficients.shape
    fields = np.full(shape, mean, np.float32), np.full(shape, variance, np.float32)
    return dataclasses.replace(world, climatology=Climatology(*fields))


def test_the_guard_takes_a_member_back_and_leaves_the_others():
    """Growth of 1.6 a day, weakly held: alone it runs away; guarded it stays within the limit."""
    world, x = toy(factor=1.6), state(3)
    x[1] = 6.0
    loose = {"error": None, "start_sigma": 0.05, "sampling": Sampling(steps=6)}
    free = rollout(world, **loose)
    kept = rollout(world, **loose, guard=Guard(limit=8.0, start_sigma=1.0))
    run = islice(kept.frames([Start(x, START, MemberGenerator(0, 3))]), 12)
    with expect(Unphysical, "left the climate"):
        list(islice(free.run(x, START, MemberGenerator(0, 3)), 12))
    for (frame,) in run:
        assert frame.state.abs().max() <= 8.0
    one = next(kept.frames([Start(x, START, MemberGenerator(0, 3))]))[0].state
    same = next(free.frames([Start(x, START, MemberGenerator(0, 3))]))[0].state
    assert torch.equal(one[[0, 2]], same[[0, 2]]) and not torch.equal(one[1], same[1])


def test_a_guard_or_an_observation_without_a_prior_is_refused():
    with expect(GapzooError, "'guard' acts through the prior"):
        rollout(toy(), prior=None, guard=Guard())


def test_an_observation_besides_the_forecast_has_the_exact_posterior():
    """The mean over the world, observed with a small error: N(x; f, P) N(y; mean x, r) p(x)."""
    world, r = toy(), 0.01
    row = torch.full((1, N), 1 / N).double()
    x = state(1)
    f = world.forecaster.step(x, START, 24)

    def observe(times):
        assert (times == START + pd.Timedelta(days=1)).all()
        return GaussianConstraint(lambda z: z.flatten(1).mean(1, keepdim=True), torch.ones(1, 1), r)

    parts = world.of_forecast(f), (row.T @ row / r, row[0] / r)
    mean, covariance = world.gauss(*parts)
    roll = rollout(world, sampling=EXACT, observe=observe)
    noise = Probe(torch.cat([torch.zeros(1, N), torch.eye(N)]))
    _, drawn = next(roll.run(x.expand(N + 1, -1, -1, -1), START, noise))
    assert (drawn[0].flatten() - mean).abs().max() < 4 * MEAN_ERROR
    root = (drawn[1:] - drawn[:1]).flatten(1).double()
    assert (root.T @ root - covariance).abs().max() < SPREAD_ERROR


def test_the_shipped_networks_forecast_alike_with_two_fifths_of_the_modes():
    """A day with modes below 0.1 merged: apart by a small part of a day's error, 0.25."""
    prior, network = (
        gapzoo.load(n) for n in ("unet_small.speedy-t21-v4", "crpscast_small.speedy-t21-v8")
    )
    noise = torch.randn(2, *prior.world.shape, generator=torch.Generator().manual_seed(0))
    start = Start(prior.covariance.sample(noise), START, MemberGenerator(0, 2))
    found, modes = [], []
    for merge in (0.0, 0.1):
        roll = rollout_of(RolloutSettings(merge=merge), prior, network, prior.world)
        modes.append(sum(roll.prior.denoiser.climatology.ranks))
        found.append(next(roll.frames([start]))[0].state)
    assert modes[1] < 0.4 * modes[0]
    apart = (found[1] - found[0]).square().mean().sqrt()
    assert 0 < apart < 0.04
