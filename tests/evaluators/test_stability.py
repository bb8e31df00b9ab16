"""Finiteness, drift, variance ratio, extremes against known series and numpy."""

import numpy as np
import pytest
import torch

from gapzoo.core import GapzooError
from gapzoo.evaluators.stability import first_nonfinite, trend


def test_first_nonfinite_step():
    states = torch.zeros(1, 3, 4, 2, 5)
    states[0, 1, 2, 1, 3] = torch.nan
    states[0, 1, 3] = torch.inf
    states[0, 2, 0, 0, 0] = -torch.inf
    assert first_nonfinite(states).tolist() == [[4, 2, 0]]


def test_first_nonfinite_of_any_run_by_channel(case):
    case.forecast[3, 4, 1, 2, 0, 0] = torch.inf
    case.forecast[0, 1, 0, 5, 3, 3] = torch.nan
    case.forecast[0, 1, 1, 5, 3, 3] = torch.nan
    found = case.score("first_nonfinite")
    expected = first_nonfinite(case.forecast.movedim(3, 0)[..., None].flatten(4)[2][..., None])
    assert found.tolist() == [2, 2, 1, 2, 2, 0, 2, 2, 2]
    assert expected.min().item() == found[2].item()
    with pytest.raises(GapzooError, match="needs the leads"):
        metric = case.build("first_nonfinite")
        metric.update(case.forecast[:, :, 0, 0], case.truth[:, 0, 0])
        metric.compute()


def test_a_run_that_stops_at_a_mask_is_still_finite(case):
    case.forecast[0, 0, 1, :, 2, 3] = torch.nan
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[2, 3] = False
    assert (case.updated(case.build("first_nonfinite"), mask=mask).compute() == 2).all()


def test_finite_share_counts_members(case):
    case.forecast[0, 1, 0, 3, 2, 2] = torch.nan
    case.forecast[0, 2, 0, 3, 0, 0] = torch.inf
    share = case.score("finite_share")
    assert share[0, 3].item() == pytest.approx(1 - 2 / 30)
    assert share[1, 3].item() == 1


def test_trend_agrees_with_polyfit():
    rng = np.random.default_rng(0)
    times, series = np.sort(rng.uniform(0, 9, 12)), rng.normal(size=(12, 3))
    found = trend(torch.as_tensor(series), torch.as_tensor(times))
    np.testing.assert_allclose(found, np.polyfit(times, series, 1)[0], rtol=1e-10)


def test_drift_per_day(case):
    case.forecast = case.truth[:, None].clone()
    case.forecast[:, :, 1] += 0.6
    found = case.score("drift", leads=[6.0, 18.0])
    torch.testing.assert_close(found, torch.full((9,), 0.05).double(), rtol=1e-6, atol=0)
    with pytest.raises(GapzooError, match="3 leads for 2"):
        case.score("drift", leads=[0, 1, 2])


def test_variance_ratio_agrees_with_numpy(case):
    area = case.grid.area_weights[:, None]
    f = case.forecast.double().numpy().var(0, ddof=1).mean(0)
    y = case.truth.double().numpy().var(0, ddof=1)
    expected = (f * area).mean((-2, -1)) / (y * area).mean((-2, -1))
    np.testing.assert_allclose(case.score("variance_ratio"), expected, rtol=1e-9)


def test_extremes_are_those_of_each_axis(case):
    f, y = case.forecast, case.truth
    expected = torch.stack(
        [f.amin((0, 1, 4, 5)), f.amax((0, 1, 4, 5)), y.amin((0, 3, 4)), y.amax((0, 3, 4))], -1
    )
    torch.testing.assert_close(case.score("extremes"), expected.double())
