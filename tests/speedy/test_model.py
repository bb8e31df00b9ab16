"""SPEEDY: states go in and out unchanged, forecasts follow the run, runs split without a trace."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import speedy_runs
import torch

from gapzoo.core import GapzooError
from gapzoo.core.truncation import TriangularTruncation
from gapzoo.speedy import setup

pytestmark = pytest.mark.speedy
GROUPS = {"u": slice(0, 8), "v": slice(8, 16), "T": slice(16, 24), "q": slice(24, 32), "ps": 32}
ROUND_TRIP = {"u": 1e-4, "v": 1e-4, "T": 3e-4, "q": 5e-8, "ps": 0.1}
"""Largest change anywhere, poles included, of a state that goes in and out: m/s, K, kg/kg, Pa."""
SIX_HOURS = {"u": 1e-3, "v": 1e-3, "T": 1e-3, "q": 1e-6, "ps": 0.3}
"""Area-weighted rms after 6 h, the median of four starts (measured: 1e-5, 2e-5, 2e-9, 0.005)."""
ONE_DAY = {"u": 0.1, "v": 0.1, "T": 0.06, "q": 3e-5, "ps": 30.0}
"""The same after 24 h, the worst of four starts: a convective column that switches a step earlier
or later takes a start from 1e-5 m/s to 0.05 m/s at once (measured: 0.05, 0.05, 0.03, 1e-5, 16)."""


def by_group(value, reduce) -> dict[str, float]:
    return {name: float(reduce(np.asarray(value)[rows])) for name, rows in GROUPS.items()}


def rms(difference: np.ndarray) -> dict[str, float]:
    weights = speedy_runs.model().grid.area_weights[:, None]
    square = (difference.astype(float) ** 2 * weights).mean((-2, -1))
    return by_group(square[:33], lambda x: np.sqrt(x.mean()))


def assert_within(found: dict[str, float], bounds: dict[str, float]) -> None:
    assert all(found[name] <= bounds[name] for name in bounds), found


@pytest.fixture(scope="module")
def model():
    return speedy_runs.model()


@pytest.fixture(scope="module")
def starts(model) -> list[tuple[dict, dict]]:
    """Errors after 6 and 24 h of forecasts from four frames of the run."""
    frames, middle, _ = speedy_runs.following()
    times = pd.date_range(middle.time - pd.Timedelta(hours=18), periods=4, freq="6h")
    runs = [model.restart(frame, time) for frame, time in zip(frames, times, strict=False)]
    ends = [speedy_runs.advance(run, 4)[1] for run in runs]
    return [(rms(e[0] - frames[k + 1]), rms(e[3] - frames[k + 4])) for k, e in enumerate(ends)]


@pytest.mark.parametrize(("call", "platforms"), [("", "cpu"), ("anywhere=True", "")])
def test_jax_keeps_the_cpu_where_nothing_else_is_wanted(call, platforms):
    """In a process of its own; an empty text has JAX look for a GPU, a later call changes none."""
    pytest.importorskip("jcm")
    code = f"from gapzoo.speedy.model import start_jax; start_jax({call}); jax = start_jax()"
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    told = subprocess.run(
        [sys.executable, "-c", f"{code}; print(repr(jax.config.jax_platforms))"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == repr(platforms)


def test_a_state_goes_in_and_out_unchanged(model):
    frames, middle, _ = speedy_runs.following()
    back = model.decode(model.restart(frames[3], middle.time))
    change = np.abs(back - frames[3, : model.prognostic])
    assert_within(by_group(change, np.max), ROUND_TRIP)
    assert_within(by_group(change[:, [0, -1]], np.max), ROUND_TRIP)


def test_decode_is_the_last_frame(model):
    frames, middle, _ = speedy_runs.following()
    change = np.abs(model.decode(middle) - frames[3, : model.prognostic])
    assert_within(
        by_group(change, np.max), {"u": 5e-5, "v": 5e-5, "T": 2e-4, "q": 5e-8, "ps": 0.05}
    )


def test_frames_lie_in_the_space_of_the_truncation(model):
    """Measured: 1e-5 of their spread; winds 0.015, as the core cuts off their last wavenumber."""
    frames, _, _ = speedy_runs.following()
    space = TriangularTruncation(model.grid, model.truncation)
    states = torch.from_numpy(frames[:, : model.prognostic])
    u, v = states[:, :8], states[:, 8:16]
    logarithm = states[:, 32:].log()
    mapped = torch.cat([*space.winds(u, v), space.scalars(states[:, 16:32])], 1)
    off = (mapped - states[:, :32]).std((0, 2, 3)) / states[:, :32].std((0, 2, 3))
    change = (space.scalars(logarithm) - logarithm).abs().max()
    found = by_group(torch.cat([off, change[None]]), np.max)
    assert_within(found, {"u": 0.03, "v": 0.03, "T": 1e-4, "q": 1e-4, "ps": 1e-5})


def test_a_forecast_follows_the_run_for_six_hours(starts):
    median = {name: np.median([six[name] for six, _ in starts]) for name in GROUPS}
    assert_within(median, SIX_HOURS)


def test_a_forecast_follows_the_run_for_a_day(starts):
    for _, day in starts:
        assert_within(day, ONE_DAY)


def test_frames_one_by_one_equal_frames_at_once_to_the_bit(model):
    frames, _, end = speedy_runs.following()
    run = speedy_runs.spun_up()
    for k in range(8):
        run, frame = speedy_runs.advance(run, 1)
        np.testing.assert_array_equal(frame[0], frames[k])
    assert run.time == end.time
    np.testing.assert_array_equal(model.decode(run), model.decode(end))


def test_the_flow_is_alive_and_physical():
    frames, _, _ = speedy_runs.following()
    assert np.isfinite(frames).all()
    assert 15 < frames[:, :8].max() < 120  # westerlies, m/s
    assert frames[:, 16:24].min() > 170 and frames[:, 16:24].max() < 330
    assert frames[:, 24:32].max() < 0.04 and frames[:, 36].max() < 0.2  # kg/kg; m in 6 h


def test_initial_surface_pressure(model):
    """983.3 hPa in the global mean, orography taken into account."""
    run = model.start(speedy_runs.START, seed=3)
    pressure = model.decode(run)[-1].mean(1)
    assert np.average(pressure, weights=model.grid.area_weights) == pytest.approx(98330, abs=5)


def test_another_seed_is_another_start(model):
    one, same, other = (model.decode(model.start(speedy_runs.START, s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0


def test_wind_inverse_is_exact(model):
    """Random spectral vorticity and divergence come back from their winds, to rounding."""
    from functools import partial

    import jax.numpy as jnp
    from dinosaur.spherical_harmonic import vor_div_to_uv_nodal

    horizontal = model._model.coords.horizontal
    mask = np.asarray(horizontal.mask).copy()
    mask[:, 0] = False
    draws = np.random.default_rng(0).standard_normal((2, 3, *horizontal.modal_shape)) * mask
    vorticity, divergence = draws.astype(np.float32)
    u, v = partial(vor_div_to_uv_nodal, horizontal, clip=False)(
        jnp.asarray(vorticity), jnp.asarray(divergence)
    )
    found = model._winds(np.asarray(u, np.float64), np.asarray(v, np.float64))
    np.testing.assert_allclose(found[0], vorticity, atol=2e-5)
    np.testing.assert_allclose(found[1], divergence, atol=2e-5)


def test_sea_level_pressure_is_smooth_over_mountains(model):
    """The ground is the dynamics' own: no column strays from 940-1070 hPa at sea level."""
    from gapzoo.core.pressure import to_pressure

    frames, _, _ = speedy_runs.following()
    pressure = to_pressure(frames, speedy_runs.world(), ["mean_sea_level_pressure"]) / 100
    assert pressure.min() > 940 and pressure.max() < 1070
    assert model.surface_geopotential.max() > 3000 * 9.81


def test_a_state_that_is_not_finite_is_refused(model):
    bad = speedy_runs.following()[0][0].copy()
    bad[20, 5, 5] = np.nan
    with pytest.raises(GapzooError, match="not finite"):
        model.restart(bad, speedy_runs.START)


@pytest.mark.parametrize("name", ["convection.nosuch", "nosuch.trcnv", "trcnv"])
def test_an_unknown_parameter_is_refused_by_name(model, name):
    from gapzoo.speedy.model import SpeedyModel

    with pytest.raises(GapzooError, match=name):
        SpeedyModel(21, parameters={name: 1.0})


def test_other_truncations_and_frames_are_refused(model):
    from gapzoo.speedy.model import SpeedyModel

    with pytest.raises(GapzooError, match="truncation 42"):
        SpeedyModel(42)
    with pytest.raises(GapzooError, match="frames of 4 h"):
        SpeedyModel(21, hours=4)


@pytest.mark.parametrize("hours", [3, 6, 12, 24])
def test_rain_is_named_by_the_frame_it_gathers_in(model, hours):
    """It is left out where the variable table has no such length."""
    from gapzoo.speedy.model import SpeedyModel

    made = model if hours == 6 else SpeedyModel(21, hours=hours)
    named = [] if hours == 3 else [f"total_precipitation_{hours}hr"]
    assert made.channels.labels[36:] == named and made.prognostic == 33


@pytest.mark.slow
def test_frames_without_a_name_for_rain_have_none(model):
    from gapzoo.speedy.model import SpeedyModel

    half = SpeedyModel(21, hours=3)
    _, frames = half.advance(half.start(speedy_runs.START, 0), speedy_runs.sea())
    _, whole = model.advance(model.start(speedy_runs.START, 0), speedy_runs.sea())
    assert frames.shape == (1, 36, 32, 64) and whole.shape == (1, 37, 32, 64)


@pytest.mark.slow
def test_t31_builds_and_advances():
    pytest.importorskip("jcm", reason="needs the package jcm")
    from gapzoo.speedy.model import SpeedyModel, ocean

    model = SpeedyModel(31)
    time = pd.DatetimeIndex(["1990-01-01 06:00"])
    run, frames = model.advance(model.start(time[0], 0), ocean(model).sst(time))
    assert frames.shape == (1, 37, 48, 96) and np.isfinite(frames).all()
    back = model.decode(model.restart(frames[0], run.time))
    assert_within(by_group(np.abs(back - frames[0, :33]), np.max), ROUND_TRIP)


def test_setting_up_warns_users_of_nothing_that_is_not_theirs(recwarn):
    setup.climate(setup.built(21, {}).coords)
    assert not [w for w in recwarn if issubclass(w.category, FutureWarning)]
