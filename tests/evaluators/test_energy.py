"""Energy score against scoringrules; one member; one point is the CRPS."""

import numpy as np
import pytest
import scoringrules
import torch

from gapzoo.evaluators import EVALUATORS


@pytest.mark.parametrize(("estimator", "theirs"), [("fair", "fair"), ("biased", "nrg")])
def test_agrees_with_scoringrules(case, estimator, theirs):
    weight = np.repeat(case.grid.area_weights, 8)
    root = np.sqrt(weight / weight.sum())
    x, y = case.forecast[:, :, 1, 2].flatten(-2), case.truth[:, 1, 2].flatten(-2)
    expected = scoringrules.es_ensemble(
        y.double().numpy() * root, x.double().numpy() * root, m_axis=1, v_axis=2, estimator=theirs
    )
    found = case.score("energy_score", estimator=estimator)[1, 2]
    assert found.item() == pytest.approx(expected.mean(), rel=1e-9)


def test_one_member_scores_the_error_of_the_field(case):
    case.forecast, case.truth = case.forecast[:1, :1], case.truth[:1]
    torch.testing.assert_close(
        case.score("energy_score"), case.score("rmse"), rtol=1e-6, atol=0
    )  # fmt: skip


def test_one_point_is_the_crps(case):
    forecast, truth = case.forecast[..., :1, :1], case.truth[..., :1, :1]
    found = []
    for name in ("energy_score", "crps"):
        metric = EVALUATORS.build(name, area_weights=[1.0])
        metric.update(forecast, truth)
        found.append(metric.compute())
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
