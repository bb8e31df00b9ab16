"""Regressions on an index and on the season: planted slopes, numpy's least squares, bad series."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.regression import YEAR

AREA = [0.5, 1.0, 1.0, 0.5]
SAMPLES = 60


def _drawn(seed=0):
    """Slopes (H,W), an index (B), a truth (B,1,H,W) with noise and a forecast (B,3,1,H,W)."""
    rng = np.random.default_rng(seed)
    slope, z = rng.normal(size=(4, 6)), rng.normal(size=SAMPLES)
    truth = 280 + slope * z[:, None, None] + 0.5 * rng.normal(size=(SAMPLES, 4, 6))
    members = 270 + 0.7 * slope * z[:, None, None, None] + rng.normal(size=(SAMPLES, 3, 4, 6))
    return slope, z, torch.tensor(truth)[:, None].float(), torch.tensor(members)[:, :, None].float()


def _updated(name, forecast, truth, series, mask=None):
    metric = EVALUATORS.build(name, area_weights=AREA)
    metric.update(forecast, truth, mask, series=torch.as_tensor(series))
    return metric.compute()


def test_slopes_agree_with_scikit_learn():
    slope, z, truth, forecast = _drawn()
    found = _updated("enso_regression", forecast, truth, z[:, None])[0].numpy()
    mean = forecast.double().numpy().mean(1)
    for ours, field in zip(found, (mean, truth.double().numpy()), strict=True):
        fit = LinearRegression().fit(z[:, None], field.reshape(SAMPLES, -1))
        np.testing.assert_allclose(ours.ravel(), fit.coef_[:, 0], rtol=1e-4, atol=1e-6)
    assert np.abs(found[1] - slope).max() < 5 * 0.5 / np.sqrt(SAMPLES)


def test_exact_slopes_are_found_and_their_pattern_is_alike():
    slope, z, _, _ = _drawn()
    truth = torch.tensor(5 + slope * z[:, None, None])[:, None]
    found = _updated("enso_regression", 0.7 * truth[:, None], truth, z[:, None])[0]
    np.testing.assert_allclose(found[0], 0.7 * slope, rtol=1e-9)
    np.testing.assert_allclose(found[1], slope, rtol=1e-9)
    assert _updated(
        "enso_pattern", 0.7 * truth[:, None], truth, z[:, None]
    ).item() == pytest.approx(1)
    assert _updated("enso_pattern", -truth[:, None], truth, z[:, None]).item() == pytest.approx(-1)


def test_pattern_is_the_area_weighted_correlation_of_the_maps():
    _, z, truth, forecast = _drawn(4)
    f, o = _updated("enso_regression", forecast, truth, z[:, None])[0].numpy()
    w = np.array(AREA)[:, None]
    expected = (w * f * o).sum() / np.sqrt((w * f * f).sum() * (w * o * o).sum())
    assert _updated("enso_pattern", forecast, truth, z[:, None]).item() == pytest.approx(expected)


def test_a_point_is_regressed_on_the_samples_that_count_there():
    _, z, truth, forecast = _drawn(1)
    mask = torch.ones_like(truth, dtype=torch.bool)
    mask[10:30, 0, 2, 3], mask[:, 0, 1, 1], mask[2:, 0, 0, 0] = False, False, False
    truth[10:30, 0, 2, 3] = torch.nan
    found = _updated("enso_regression", forecast, truth, z[:, None], mask)[0, 1].numpy()
    keep = np.r_[0:10, 30:SAMPLES]
    expected = np.polyfit(z[keep], truth[keep, 0, 2, 3].double(), 1)[0]
    assert found[2, 3] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(found[1, 1]) and np.isfinite(found[0, 0])


def _year(amplitude, day, level=280.0):
    """(B,1,H,W) of a pure annual cycle with its maximum on a day, and its (B,2) regressors."""
    t = np.arange(0, 3 * YEAR, 10)
    phase = 2 * np.pi * t / YEAR
    wave = amplitude * np.cos(phase[:, None, None] - 2 * np.pi * day / YEAR)
    series = np.stack([np.cos(phase), np.sin(phase)], -1)
    return torch.tensor(level + wave)[:, None], series


def test_annual_cycle_has_its_amplitude_and_day():
    rng = np.random.default_rng(2)
    size, day = rng.uniform(1, 9, (4, 6)), rng.uniform(0, 365, (4, 6))
    truth, series = _year(size, day)
    forecast, _ = _year(1.2 * size, day, 270.0)
    found = _updated("annual_cycle", forecast[:, None], truth, series)[0].numpy()
    np.testing.assert_allclose(found[1], [size, day], rtol=1e-6)
    np.testing.assert_allclose(found[0], [1.2 * size, day], rtol=1e-6)
    error = _updated("annual_cycle_error", forecast[:, None], truth, series)
    assert error.item() == pytest.approx(0.2, rel=1e-6)
    late, _ = _year(size, day + YEAR / 12)
    error = _updated("annual_cycle_error", late[:, None], truth, series)
    assert error.item() == pytest.approx(2 * np.sin(np.pi / 12), rel=1e-6)


def test_bad_series_are_named():
    _, z, truth, forecast = _drawn()
    metric = EVALUATORS.build("enso_regression", area_weights=AREA)
    with pytest.raises(GapzooError, match=r"IndexRegression needs series=\.\.\., its \(B,1\)"):
        metric.update(forecast, truth)
    with pytest.raises(GapzooError, match=r"given series \(60, 2\); it must be \(60,1\)"):
        metric.update(forecast, truth, series=torch.zeros(60, 2))
    z[3] = np.nan
    with pytest.raises(GapzooError, match="the series is not finite"):
        metric.update(forecast, truth, series=torch.tensor(z)[:, None])


def test_samples_that_do_not_determine_a_slope_give_none():
    _, _, truth, forecast = _drawn()
    found = _updated("enso_regression", forecast, truth, np.ones((SAMPLES, 1)))
    assert torch.isnan(found).all()
