"""SPEEDY as a forecaster of normalised states: it follows the run that its world comes from."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import speedy_runs
import torch

from gapzoo.core import Channels, GapzooError

pytestmark = pytest.mark.speedy


@pytest.fixture(scope="module")
def speedy():
    """The forecaster, on the model that the other tests have compiled."""
    world, model = speedy_runs.world(), speedy_runs.model()
    from gapzoo.forecasters import FORECASTERS

    forecaster = FORECASTERS.build("speedy", world=world)
    assert forecaster.model.channels == model.channels
    forecaster.model = model
    return forecaster


def normalised(world, frames, start):
    times = pd.date_range(start, periods=len(frames), freq="6h")
    return world.normalise(torch.from_numpy(frames), times), times


def test_it_follows_the_run_it_starts_from(speedy):
    frames, middle, _ = speedy_runs.following()
    first = middle.time - pd.Timedelta(hours=18)
    z, times = normalised(speedy.world, frames, first)
    later = speedy.step(z[3:4], times[3], 24)
    found = speedy.world.denormalise(later[None], times[7:8])[0, 0].numpy()
    square = ((found - frames[7]).astype(float) ** 2).mean(-1)
    rms = np.sqrt(np.average(square, axis=1, weights=speedy.world.grid.area_weights))
    assert rms[:16].max() < 0.3 and rms[16:24].max() < 0.15 and rms[32] < 30, rms[:33]
    change = np.sqrt(((frames[3] - frames[7]).astype(float) ** 2).mean((1, 2)))
    ratio = rms[:33] / change[:33]
    assert np.median(ratio) < 0.05 and ratio.max() < 0.5, ratio  # of what persistence errs by
    assert np.abs(found[33] - frames[7, 33]).max() < 3  # 2 m temperature comes along


def test_members_are_stepped_alone_and_sst_anomalies_enter(speedy):
    frames, middle, _ = speedy_runs.following()
    z, times = normalised(speedy.world, frames, middle.time - pd.Timedelta(hours=18))
    warm = np.full((1, 32, 64), 2.0, np.float32)
    both = speedy.step(z[[2, 3]], times[3], 24)
    torch.testing.assert_close(both[1:], speedy.step(z[3:4], times[3], 24), rtol=0, atol=0)
    assert (both[0] - both[1]).abs().max() > 0.01
    warmed = speedy.step(z[3:4], times[3], 24, forcing=warm)
    t2m = speedy.world.channels.index("2m_temperature")
    change = (warmed - both[1:])[0, t2m] * speedy.world.std[t2m]
    assert 0.1 < change.mean() < 2.0


def test_leads_and_worlds_that_do_not_fit_are_refused(speedy):
    state = torch.zeros(1, *speedy.world.shape)
    with pytest.raises(GapzooError, match="9 h; SPEEDY here steps 6 h"):
        speedy.step(state, speedy_runs.START, 9)
    with pytest.raises(GapzooError, match="not finite"):
        speedy.step(state * np.nan, speedy_runs.START, 24)
    from gapzoo.forecasters import FORECASTERS

    world = speedy.world
    shuffled = Channels([*world.channels[1:], world.channels[0]], "sigma")
    with pytest.raises(GapzooError, match=r"u_component_of_wind@0\.025"):
        FORECASTERS.build("speedy", world=dataclasses.replace(world, channels=shuffled))


def test_rain_over_another_frame_is_refused_and_a_world_without_rain_is_not(speedy):
    from gapzoo.forecasters import FORECASTERS

    world = speedy.world
    with pytest.raises(GapzooError, match="frames of 12 h has no 'total_precipitation_6hr'"):
        FORECASTERS.build("speedy", world=world, hours=12)
    dry = dataclasses.replace(world, channels=Channels(world.channels.labels[:36], "sigma"))
    assert FORECASTERS.build("speedy", world=dry, hours=12)._kept == list(range(36))
