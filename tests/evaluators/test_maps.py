"""Maps against numpy and scoringrules, point by point, and against the scores they are maps of."""

import numpy as np
import pytest
import scoringrules
import torch

from gapzoo.evaluators import EVALUATORS


def _numpy(case):
    return case.forecast.double().numpy(), case.truth.double().numpy()


def test_rmse_and_bias_by_point(case):
    x, y = _numpy(case)
    error = x.mean(1) - y
    np.testing.assert_allclose(case.score("bias_map"), error.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(case.score("rmse_map"), np.sqrt((error**2).mean(0)), rtol=1e-5)


def test_the_area_mean_of_a_map_is_the_score(case):
    area = torch.as_tensor(case.grid.area_weights)[:, None] / 48
    square = (case.score("rmse_map").square() * area).sum((-2, -1))
    torch.testing.assert_close(square.sqrt(), case.score("rmse"), rtol=1e-6, atol=0)
    mean = (case.score("crps_map") * area).sum((-2, -1))
    torch.testing.assert_close(mean, case.score("crps"), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("ours", "theirs"), [("fair", "fair"), ("biased", "nrg")])
def test_crps_by_point_agrees_with_scoringrules(case, ours, theirs):
    x, y = _numpy(case)
    expected = scoringrules.crps_ensemble(y, x, m_axis=1, estimator=theirs).mean(0)
    np.testing.assert_allclose(case.score("crps_map", estimator=ours), expected, rtol=1e-4)


def test_centred_correlation_by_point_is_pearsons(case):
    x, y = _numpy(case)
    found, mean = case.score("acc_map", centred=True), x.mean(1)
    for at in [(0, 0, 0, 0), (1, 4, 3, 7), (0, 8, 5, 2)]:
        expected = np.corrcoef(mean[:, *at], y[:, *at])[0, 1]
        assert found[at].item() == pytest.approx(expected, rel=1e-4)


def test_a_point_is_of_the_samples_that_count_there():
    truth = torch.zeros(4, 1, 2, 2)
    forecast = torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1, 1, 1).expand(4, 1, 1, 2, 2)
    mask = torch.ones(4, 1, 2, 2, dtype=torch.bool)
    mask[2:, 0, 0, 1], mask[:, 0, 1, 0] = False, False
    metric = EVALUATORS.build("bias_map", area_weights=[1.0, 3.0])
    metric.update(forecast, truth, mask)
    np.testing.assert_allclose(metric.compute()[0], [[2.5, 1.5], [np.nan, 2.5]])
