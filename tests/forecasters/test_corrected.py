"""Linear corrections: what is linear in forecast and start is found, and nothing else."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from models import saved, toy_forecaster, toy_prior, zonal
from worlds import expect, flat_world, toy_archive

from gapzoo import checkpoint, cli, measure
from gapzoo.core import Channels, GapzooError, MemberGenerator
from gapzoo.core.climatology import Climatology
from gapzoo.core.primitive import Adiabatic
from gapzoo.data.module import Reader
from gapzoo.diffusion.modes import on_grid, waves_of
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters.abroad import Abroad
from gapzoo.forecasters.corrected import Corrected, Stage, corrections
from gapzoo.forecasters.linear import Correction, Fit, bases
from gapzoo.forecasters.trivial import Persistence
from gapzoo.tasks.rollout import Start
from gapzoo.tasks.settings import RolloutSettings, rollout_of

TIME = pd.Timestamp("1980-03-01")
LEAST = 0.1


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("run") / "toy.zarr")


@pytest.fixture(scope="module")
def basis(archive):
    return zonal(archive)


def winds_world():
    """Wind and temperature on two pressure levels, with seasons."""
    names = ("u_component_of_wind", "v_component_of_wind", "temperature")
    labels = [f"{name}@{level}" for name in names for level in (300, 700)]
    mean = np.zeros((3, 6, 6, 12), np.float32)
    mean[0, 4:], mean[1, 4:] = 270.0, np.linspace(-8, 8, 6)[:, None]
    spread = np.full((1, 6, 6, 12), 9.0, np.float32)
    return dataclasses.replace(
        flat_world(6, 6, 12),
        channels=Channels(labels, "pressure"),
        climatology=Climatology(mean, spread),
    )


def drawn(basis, count, seed):
    noise = torch.randn(count, *basis.shape, generator=torch.Generator().manual_seed(seed))
    return basis.sample(noise)


def wrong(basis, forecast, start):
    """A map that mixes latitudes and channels of forecast and start, alike at all longitudes."""
    size = basis.shape[0] * basis.shape[1]
    g = torch.Generator().manual_seed(9)
    a, b = (0.3 * torch.randn(size, size, generator=g) / size**0.5 for _ in range(2))
    parts = zip(waves_of(forecast), waves_of(start), bases(basis, LEAST), strict=True)
    a, b = a.to(torch.complex64), b.to(torch.complex64)
    inside = [
        (f @ e.conj() @ e.T @ a + x @ e.conj() @ e.T @ b) @ e.conj() @ e.T
        for f, x, (e, _, _) in parts
    ]
    return on_grid(inside, basis.shape)


def batches(basis, count, noise, seed=0):
    """Forecasts and starts that have half of their variance in common, in batches of 50."""
    for n in range(count // 50):
        common, own, start = (drawn(basis, 50, 1000 * seed + 3 * n + i) for i in range(3))
        forecast, start = (common + own) / 2**0.5, (common + start) / 2**0.5
        rest = noise * drawn(basis, 50, 500_000 + 1000 * seed + n)
        yield forecast, forecast + wrong(basis, forecast, start) + rest, start, None


def fitted(basis, early, late):
    fit = Fit(basis, LEAST)
    for part, judges in ((early, False), (late, True)):
        for batch in part:
            fit.add(*batch, late=judges)
    return fit.solve()


def test_what_is_linear_is_found_and_taken_off(basis):
    parts = batches(basis, 800, 0.02), batches(basis, 200, 0.02, 1)
    found, left = fitted(basis, *parts)
    ((forecast, truth, start, _),) = batches(basis, 50, 0.0, 2)
    before, after = forecast - truth, found(forecast, start) - truth
    assert after.square().mean() < 0.01 * before.square().mean()
    assert left < 0.02


def test_where_nothing_is_linear_little_is_added(basis):
    """Errors that are noise: the largest ridge, and less than a hundredth of their square."""

    def noisy(seed):
        for n, (forecast, _, start, _) in enumerate(batches(basis, 500, 0.0, seed)):
            noise = 0.3 * drawn(basis, 50, 90_000 + 100 * seed + n)
            yield forecast, forecast + noise, start, None

    found, left = fitted(basis, noisy(4), noisy(5))
    ((forecast, _, start, _),) = batches(basis, 50, 0.0, 6)
    added = found(forecast, start) - forecast
    assert left > 0.98 and added.square().mean() < 0.05 * 0.3**2


def test_a_state_that_is_far_out_is_corrected_by_a_bound(basis):
    """Usual ones as they were; a checkpoint keeps the bound."""
    free, _ = fitted(basis, batches(basis, 200, 0.1), batches(basis, 50, 0.1, 1))
    ((forecast, _, start, _),) = batches(basis, 50, 0.0, 2)
    changes = free(forecast, start) - forecast
    found = free.bounded([changes[:20], changes[20:]])
    assert torch.equal(found(forecast, start), forecast + changes)
    usual = changes.square().mean((0, 2, 3)).sqrt()
    far = found(100 * forecast, 100 * start) - 100 * forecast
    assert free(100 * forecast, 100 * start).sub(100 * forecast).abs().amax() > 20 * usual.amax()
    torch.testing.assert_close(far.abs().amax((0, 2, 3)), 6 * usual, rtol=1e-3, atol=1e-4)
    (kept,) = corrections(Stage(found).to_tensors(24, 1), basis, flat_world())[24]
    assert torch.equal(kept.linear.most, found.most)


def test_what_the_flow_tells_is_found_beside(basis):
    """Truths that hold half of a third field: without it nothing of that is found."""

    def flowing(seed, count, known=True):
        for n, (forecast, truth, start, _) in enumerate(batches(basis, count, 0.02, seed)):
            flow = drawn(basis, 50, 700_000 + 1000 * seed + n)
            yield forecast, truth + 0.5 * flow, start, 40 * flow if known else None

    found, left = fitted(basis, flowing(0, 800), flowing(1, 200))
    _, without = fitted(basis, flowing(0, 800, False), flowing(1, 200, False))
    assert found.flowing and left < 0.05 < 0.5 < without
    ((forecast, truth, start, flow),) = flowing(2, 50)
    after = found(forecast, start, flow) - truth
    assert after.square().mean() < 0.05 * (forecast - truth).square().mean()
    (kept,) = corrections(Stage(found).to_tensors(6, 1), basis, flat_world())[6]
    torch.testing.assert_close(
        kept.linear(forecast, start, flow), found(forecast, start, flow), rtol=0, atol=1e-2
    )


def test_a_step_takes_the_flow_halfway():
    """Persistence in a world of winds: what is added is the tendency at noon, by its matrices."""
    world = winds_world()
    g = torch.Generator().manual_seed(0)
    states = torch.randn(40, *world.shape, generator=g)
    basis = ZonalCovariance.fit([states])
    ranks, zero = [e.shape[1] for e, _, _ in bases(basis, LEAST)], torch.complex64
    rows = zip(ranks, basis.ranks, strict=True)
    matrices = [torch.eye(k, 2 * k + r, dtype=zero).roll(2 * k, 1) for k, r in rows]
    scales = [torch.full((m.shape[1],), 2.0) for m in matrices]
    step = Corrected(Persistence(world), {24: [Stage(Correction(basis, LEAST, matrices, scales))]})
    each, times = [states[:2], states[2:3]], [TIME, TIME + pd.Timedelta(days=100)]
    found = step.steps(each, times, 24, [None, None], [None, None])
    for state, time, after in zip(each, times, found, strict=True):
        still = Persistence(world).step(state, time, 24)
        noon = pd.DatetimeIndex([time + pd.Timedelta(hours=12)])
        waves = waves_of(Adiabatic(world)((state + still) / 2, noon))
        parts = zip(waves, bases(basis, LEAST), strict=True)
        added = [(w @ whole.conj())[:, : len(r)] / 2 * r @ e.T for w, (e, r, whole) in parts]
        torch.testing.assert_close(after, still + on_grid(added, world.shape), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(step.step(state, time, 24), after, rtol=1e-4, atol=1e-4)


def test_it_turns_with_the_globe_and_with_nothing_else(basis):
    found, _ = fitted(basis, batches(basis, 200, 0.1), batches(basis, 50, 0.1, 1))
    forecast, start = drawn(basis, 3, 1), drawn(basis, 3, 2)
    turned = found(forecast.roll(3, -1), start.roll(3, -1))
    torch.testing.assert_close(turned, found(forecast, start).roll(3, -1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found(forecast.flip(-2), start.flip(-2)), turned.flip(-2), atol=1e-3)


def test_a_checkpoint_keeps_it_to_half_precision_and_refuses_another_basis(archive, basis):
    found, _ = fitted(basis, batches(basis, 200, 0.1), batches(basis, 50, 0.1, 1))
    tensors, world = Stage(found).to_tensors(24, 1), flat_world()
    (kept,) = corrections(tensors, basis, world)[24]
    forecast, start = drawn(basis, 3, 1), drawn(basis, 3, 2)
    torch.testing.assert_close(
        kept.linear(forecast, start), found(forecast, start), rtol=0, atol=3e-3
    )
    fewer = basis.merged(basis.above(3.0))
    with expect(GapzooError, "a correction of", "fit it with 'gapzoo calibrate'"):
        corrections(tensors, fewer, world)
    for old in (
        {k: v for k, v in tensors.items() if "scale" not in k},
        {k.replace("24-1", "24"): v for k, v in tensors.items()},
    ):
        with expect(GapzooError, "'correction24", "is of an older form; fit it anew"):
            corrections(old, basis, world)
    with expect(GapzooError, "no forecasts to fit"):
        Fit(basis, LEAST).solve()


def test_only_leads_that_are_known_are_corrected(archive, basis):
    world = toy_prior(archive).world
    found, _ = fitted(basis, batches(basis, 200, 0.1), batches(basis, 50, 0.1, 1))
    plain = toy_forecaster(archive, model="crpscast_small").forecaster_in(world)
    whole = Corrected(plain, {24: [Stage(found)]})
    states = [drawn(basis, n, n) for n in (2, 1)]
    times, rest = [TIME, TIME + pd.Timedelta(days=9)], [None, None]

    def streams():
        return [MemberGenerator(n, len(s)) for n, s in enumerate(states)]

    together = whole.steps(states, times, 24, rest, streams())
    own = plain.steps(states, times, 24, rest, streams())
    for state, time, stream, before, after in zip(
        states, times, streams(), own, together, strict=True
    ):
        torch.testing.assert_close(after, found(before, state), rtol=1e-4, atol=1e-5)
        alone = whole.step(state, time, 24, None, stream)
        torch.testing.assert_close(alone, after, rtol=1e-4, atol=1e-5)
    for a, b in zip(
        whole.steps(states, times, 6, rest, streams()),
        plain.steps(states, times, 6, rest, streams()),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert whole.stochastic and not Corrected(toy_forecaster(archive).forecaster, {}).stochastic


def test_a_step_of_two_stages_is_two_steps_of_half_the_lead(archive, basis):
    """Each pass draws on from where the one before left the members' streams."""
    world = toy_prior(archive).world
    first, _ = fitted(basis, batches(basis, 200, 0.1), batches(basis, 50, 0.1, 1))
    second, _ = fitted(basis, batches(basis, 200, 0.1, 7), batches(basis, 50, 0.1, 8))
    plain = toy_forecaster(archive, model="crpscast_small").forecaster_in(world)
    whole = Corrected(plain, {24: [Stage(first), Stage(second)]})
    state, stream = drawn(basis, 2, 1), MemberGenerator(0, 2)
    noon = first(plain.step(state, TIME, 12, None, stream), state)
    after = plain.step(noon, TIME + pd.Timedelta(hours=12), 12, None, stream)
    found = whole.step(state, TIME, 24, None, MemberGenerator(0, 2))
    torch.testing.assert_close(found, second(after, noon), rtol=1e-4, atol=1e-5)


def test_stages_are_kept_in_order(basis):
    made = [
        fitted(basis, batches(basis, 100, 0.1, n), batches(basis, 50, 0.1, 20))[0] for n in (1, 2)
    ]
    tensors = {}
    for number in (2, 1):
        tensors |= Stage(made[number - 1]).to_tensors(24, number)
    kept = corrections(tensors, basis, flat_world())[24]
    for stage, linear in zip(kept, made, strict=True):
        torch.testing.assert_close(stage.linear.scales, linear.scales)


def test_calibrate_fits_and_roll_outs_use_it(tmp_path, monkeypatch, capsys):
    """The toy's memory of 0.8 a day: persistence, which the network nearly is, has 1.11 times the
    squared error of what is linear in the state."""
    archive = toy_archive(tmp_path / "toy.zarr", end="1985-12-31")
    for name, value in (("ERROR_FORECASTS", 60), ("EVALUATIONS", 24), ("RECURRENCES", 24)):
        monkeypatch.setattr(measure, name, value)
    prior, network = toy_prior(archive, wiener=True), toy_forecaster(archive)
    saved(prior, tmp_path / "p")
    folder = saved(network, tmp_path / "f")
    train, validate = "[1979-01-01, 1984-12-31]", "[1985-01-01, 1985-12-31]"
    (folder / "recipe.yaml").write_text(
        f"name: {network.name}\nkind: forecaster\nmodel: convcast_small\nhours: [24]\n"
        f"archive: {archive.path}\ntrain: {train}\nvalidate: {validate}\nmax_steps: 1\n"
    )
    words = ["calibrate", str(folder), str(tmp_path / "p"), "--correct", "24", "--steps", "2"]
    assert cli.main([*words, "--output", str(tmp_path / "convcast_small.right")]) == 0
    right = checkpoint.load(tmp_path / "convcast_small.right")
    assert right.name == "convcast_small.right" and right.hash == checkpoint.load(folder).hash
    assert "the same weights" in right.details["parent"]
    assert "squared error left by correction, 24 h" in right.details["scores"]
    reader, rows = Reader(archive, prior.world), archive.indices("1985-02-01", "1985-11-30")
    start, truth = reader.state(rows), reader.state(rows + 1)
    steps = [right.forecaster_in(prior.world, p) for p in (None, prior)]
    error = [(s.step(start, TIME, 24) - truth).square().mean() for s in steps]
    assert 0.85 < error[1] / error[0] < 0.95
    assert steps[1].corrections[24][0].local is not None
    assert isinstance(steps[1], Corrected) and not isinstance(steps[0], Corrected)
    roll = rollout_of(RolloutSettings(members=2), prior, right, prior.world)
    assert isinstance(roll.forecaster, Corrected)
    frame = next(roll.frames([Start(start[:2], TIME, MemberGenerator(0, 2))]))[0]
    assert torch.isfinite(frame.state).all()
    other = toy_archive(tmp_path / "other.zarr", noise=1.5)
    abroad = right.forecaster_in(toy_prior(other).world, prior)
    assert isinstance(abroad, Abroad) and isinstance(abroad.home, Corrected)
    assert cli.main(["calibrate", str(tmp_path / "p"), "--correct", "24"]) == 2
    assert "--correct is of a forecaster" in " ".join(capsys.readouterr().err.split())
    assert cli.main([*words, "--stages", "2"]) == 2
    assert "24 h in 2 stages; the archive has steps of 24 h" in capsys.readouterr().err
