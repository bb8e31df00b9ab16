"""Persistence and climatology: known answers in SI units, under a season that moves."""

import numpy as np
import pandas as pd
import pytest
import torch
from worlds import NAMES, toy_archive

from gapzoo.core import GapzooError
from gapzoo.data.module import world_of
from gapzoo.forecasters import FORECASTERS

TIME = pd.Timestamp("1979-03-01 12:00")
HOURS = 240


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return world_of(toy_archive(tmp_path_factory.mktemp("toy") / "a.zarr"))


@pytest.fixture
def state(world):
    return torch.randn(3, *world.shape, generator=torch.Generator().manual_seed(0))


def physical(world, state, hours):
    return world.denormalise(state[None], pd.DatetimeIndex([TIME + pd.Timedelta(hours=hours)]))[0]


def test_persistence_keeps_the_state_in_si_units(world, state):
    later = FORECASTERS.build("persistence", world=world).step(state, TIME, HOURS)
    now, then = physical(world, state, 0), physical(world, later, HOURS)
    torch.testing.assert_close(then, now, rtol=1e-6, atol=0)
    assert (later - state).abs().max() > 0.05  # the climatology has moved under it


def test_climatology_forecasts_the_mean_of_the_day(world, state):
    later = FORECASTERS.build("climatology", world=world).step(state, TIME, HOURS)
    mean = world.mean(pd.DatetimeIndex([TIME + pd.Timedelta(hours=HOURS)]))[0]
    then = physical(world, later, HOURS)
    assert then.shape == (3, len(NAMES), *world.grid.shape)
    for member in then:
        torch.testing.assert_close(member, mean, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["persistence", "climatology"])
def test_bad_leads_and_states_are_refused(world, state, name):
    forecaster = FORECASTERS.build(name, world=world)
    for hours in (0, -6):
        with pytest.raises(GapzooError, match="positive lead"):
            forecaster.step(state, TIME, hours)
    with pytest.raises(GapzooError, match=r"\(M, 3, 4, 8\)"):
        forecaster.step(state[:, :2], TIME, 6)


def test_members_do_not_touch_each_other(world, state):
    for name in ("persistence", "climatology"):
        forecaster = FORECASTERS.build(name, world=world)
        alone = torch.cat([forecaster.step(state[k : k + 1], TIME, HOURS) for k in range(3)])
        np.testing.assert_array_equal(alone, forecaster.step(state, TIME, HOURS))
