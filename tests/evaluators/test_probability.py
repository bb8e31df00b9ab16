"""Brier, reliability, RPSS: against scores, and by hand."""

import numpy as np
import pytest
import scores.probability
import torch
import xarray as xr
from sklearn.calibration import calibration_curve

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.rpss import ranked_probability

THRESHOLDS = [-0.3, 0.8]


def _brier_of_scores(case, thresholds, fair):
    return scores.probability.brier_score_for_ensemble(
        xr.DataArray(case.forecast.numpy(), dims=["b", "m", "l", "c", "h", "w"]),
        xr.DataArray(case.truth.numpy(), dims=["b", "l", "c", "h", "w"]),
        "m",
        thresholds,
        preserve_dims=["l", "c"],
        weights=xr.DataArray(case.grid.area_weights, dims=["h"]),
        fair_correction=fair,
    )


@pytest.mark.parametrize(("estimator", "fair"), [("fair", True), ("biased", False)])
def test_brier_agrees_with_scores(case, estimator, fair):
    expected = _brier_of_scores(case, THRESHOLDS, fair).transpose("l", "c", "threshold")
    np.testing.assert_allclose(
        case.score("brier", estimator=estimator), expected.values, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(("estimator", "fair"), [("fair", True), ("biased", False)])
def test_rps_is_the_sum_of_brier_scores(case, estimator, fair):
    expected = _brier_of_scores(case, THRESHOLDS, fair).sum("threshold").values
    edges = torch.tensor(THRESHOLDS).view(1, 2, 1, 1, 1, 1).expand(5, 2, 2, 9, 6, 8)
    rps, climate = ranked_probability(case.forecast, case.truth, edges, estimator)
    area = torch.as_tensor(case.grid.area_weights)[:, None] / 48
    np.testing.assert_allclose((rps * area).sum((-2, -1)).mean(0), expected, rtol=1e-5)
    metric = case.build("rpss", estimator=estimator)
    metric.update(case.forecast, case.truth, climatology=edges)
    skill = 1 - expected / (climate * area).sum((-2, -1)).mean(0).numpy()
    np.testing.assert_allclose(metric.compute(), skill, rtol=1e-4, atol=1e-6)


def test_climatological_ensemble_has_no_skill_when_fair():
    points, edge = 40_000, 0.4307273
    drawn = torch.randn(1, 11, 1, points, generator=torch.Generator().manual_seed(2))
    edges = torch.tensor([-edge, edge]).view(1, 2, 1, 1).expand(1, 2, 1, points)
    metric = EVALUATORS.build("rpss", area_weights=[1.0])
    metric.update(drawn[:, 1:], drawn[:, 0], climatology=edges)
    rps, climate = ranked_probability(drawn[:, 1:], drawn[:, 0], edges)
    deviation = (rps - climate).std().item() / points**0.5 / climate.mean().item()
    assert abs(metric.compute().item()) < 4 * deviation


def test_perfect_forecast_has_full_skill(case):
    case.forecast = case.truth[:, None].expand(-1, 3, -1, -1, -1, -1)
    assert torch.equal(case.score("rpss"), torch.ones(2, 9, dtype=torch.float64))
    assert torch.equal(case.score("brier"), torch.zeros(2, 9, 2, dtype=torch.float64))


def test_reliability_by_hand():
    members = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).T.reshape(1, 4, 1, 3)
    truth = torch.tensor([[[1.0, 0, 0]]])
    metric = EVALUATORS.build("reliability", area_weights=[2.0], thresholds=[0.5])
    metric.update(members, truth)
    table = metric.compute()[0]
    rows = {0: (0.0, 0.0, 1 / 3), 2: (0.25, 0.0, 1 / 3), 5: (0.5, 1.0, 1 / 3)}
    for k in range(10):
        if k in rows:
            assert table[k].tolist() == pytest.approx(rows[k])
        else:
            assert torch.isnan(table[k, :2]).all() and table[k, 2] == 0


def test_reliability_of_a_true_probability_lies_on_the_diagonal():
    points, members = 30_000, 10
    generator = torch.Generator().manual_seed(4)
    p = torch.randint(0, members + 1, (points,), generator=generator)
    forecast = (torch.arange(members)[:, None] < p).float().view(1, members, 1, points)
    truth = (torch.rand(points, generator=generator) < p / members).float().view(1, 1, points)
    metric = EVALUATORS.build("reliability", area_weights=[1.0], thresholds=[0.5])
    metric.update(forecast, truth)
    probability, frequency, share = metric.compute()[0].unbind(-1)
    deviation = (probability * (1 - probability) / (share * points)).sqrt()
    assert ((frequency - probability).abs() <= 4 * deviation + 1e-12).all()


def test_reliability_agrees_with_scikit_learn(case):
    metric = case.build("reliability", area_weights=np.ones(6), thresholds=[0.2])
    table = case.updated(metric).compute()[:, :, 0].numpy()
    p = (case.forecast >= 0.2).double().mean(1)[:, 1, 4].flatten().numpy()
    o = (case.truth >= 0.2)[:, 1, 4].flatten().numpy()
    frequency, probability = calibration_curve(o, (p + 1e-9).clip(max=1), n_bins=10)
    there = table[1, 4, :, 2] > 0
    np.testing.assert_allclose(table[1, 4, there, 0], probability, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(table[1, 4, there, 1], frequency, rtol=1e-6)


def test_no_threshold_is_named(case):
    with pytest.raises(GapzooError, match="thresholds is empty"):
        case.build("brier", thresholds=[])
