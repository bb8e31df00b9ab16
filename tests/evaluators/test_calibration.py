"""Spread/skill and rank histogram: a calibrated Gaussian toy, scores, ties."""

import numpy as np
import pytest
import scores.probability
import torch
import xarray as xr
from scipy.spatial.distance import cityblock
from scipy.stats import chi2, rankdata

from gapzoo.evaluators import EVALUATORS

POINTS = 20_000


def _toy(members, spread=1.0):
    """Truth and members drawn alike about a common signal; (1,M,1,N), (1,1,N)."""
    generator = torch.Generator().manual_seed(members)
    drawn = torch.randn(1, members + 1, 1, POINTS, generator=generator)
    signal = 3 * torch.randn(1, 1, 1, POINTS, generator=generator)
    return signal + spread * drawn[:, 1:], (signal + drawn[:, :1])[:, 0]


def _score(name, forecast, truth, **given):
    metric = EVALUATORS.build(name, area_weights=[1.0], **given)
    metric.update(forecast, truth)
    return metric.compute()


@pytest.mark.parametrize("members", [2, 8, 40])
def test_calibrated_ensemble_has_spread_skill_one(members):
    deviation = 0.5 * np.sqrt(2 / POINTS + 2 / ((members - 1) * POINTS))
    assert abs(_score("spread_skill", *_toy(members)).item() - 1) < 4 * deviation
    assert abs(_score("spread", *_toy(members)).item() - 1) < 4 * deviation


def test_spread_skill_of_a_narrow_ensemble():
    members, spread = 8, 0.5
    expected = np.sqrt((members + 1) / members * spread**2 / (1 + spread**2 / members))
    deviation = 0.5 * expected * np.sqrt(2 / POINTS + 2 / ((members - 1) * POINTS))
    assert abs(_score("spread_skill", *_toy(members, spread)).item() - expected) < 4 * deviation


def test_spread_and_skill_agree_with_xarray(case):
    """Its weighted means of the variance (M-1) and of the squared error, in Fortin's formula."""
    x = xr.DataArray(case.forecast.double().numpy(), dims=["b", "m", "l", "c", "h", "w"])
    y = xr.DataArray(case.truth.double().numpy(), dims=["b", "l", "c", "h", "w"])
    area = xr.DataArray(case.grid.area_weights, dims=["h"])
    fields = x.var("m", ddof=1), (x.mean("m") - y) ** 2
    variance, error = (f.weighted(area).mean(["b", "h", "w"]).values for f in fields)
    np.testing.assert_allclose(case.score("spread"), np.sqrt(variance), rtol=1e-5)
    expected = np.sqrt(7 / 6 * variance / error)
    np.testing.assert_allclose(case.score("spread_skill"), expected, rtol=1e-5)


@pytest.mark.parametrize("members", [2, 9])
def test_calibrated_ensemble_has_a_flat_rank_histogram(members):
    shares = _score("rank_histogram", *_toy(members)).numpy()
    expected = 1 / (members + 1)
    statistic = POINTS * ((shares - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(0.9999, members)
    narrow = _score("rank_histogram", *_toy(members, 0.3)).numpy()
    statistic = POINTS * ((narrow - expected) ** 2 / expected).sum()
    assert statistic > chi2.ppf(0.9999, members)
    assert narrow[[0, -1]].min() > narrow[1:-1].max()


def test_calibration_index_agrees_with_scipy():
    """The city-block distance between the histogram of scipy's ranks and a flat one."""
    forecast, truth = _toy(6, 0.6)
    together = np.concatenate([truth[:, None], forecast], 1)[0, :, 0]
    shares = np.bincount(rankdata(together, axis=0)[0].astype(int) - 1, minlength=7) / POINTS
    expected = cityblock(shares, np.full(7, 1 / 7))
    assert expected > 0.1
    assert _score("calibration_index", forecast, truth).item() == pytest.approx(expected, rel=1e-6)


def test_rank_histogram_agrees_with_scores_with_ties(case):
    case.forecast, case.truth = (case.forecast * 2).round(), (case.truth * 2).round()
    expected = scores.probability.rank_histogram(
        xr.DataArray(case.forecast.numpy(), dims=["b", "m", "l", "c", "h", "w"]),
        xr.DataArray(case.truth.numpy(), dims=["b", "l", "c", "h", "w"]),
        "m",
        preserve_dims=["l", "c"],
        weights=xr.DataArray(case.grid.area_weights, dims=["h"]),
    )
    np.testing.assert_allclose(case.score("rank_histogram"), expected.values, rtol=1e-9)


def test_ties_are_drawn_evenly_from_the_generator():
    forecast, truth = torch.zeros(1, 3, 1, POINTS), torch.zeros(1, 1, POINTS)
    found = [
        _score("rank_histogram", forecast, truth, generator=torch.Generator().manual_seed(s))
        for s in (5, 5, 6)
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    statistic = POINTS * ((found[0] - 0.25) ** 2 / 0.25).sum().item()
    assert 0 < statistic < chi2.ppf(0.9999, 3)


def test_calibration_index_of_known_histograms():
    forecast = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(1, 3, 1, 4)
    flat = torch.tensor([[[0.5, 1.5, 2.5, 3.5]]])
    assert _score("calibration_index", forecast, flat).item() == pytest.approx(0)
    outside = torch.full((1, 1, 4), 9.0)
    assert _score("calibration_index", forecast, outside).item() == pytest.approx(2 * 3 / 4)
