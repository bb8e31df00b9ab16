"""Energy score against scoringrules; one member; one point is the CRPS."""

import numpy as np
import pytest
import scoringrules
import torch

from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import samples_by_region


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


@pytest.mark.parametrize("members", [3, 12])
def test_bands_at_once_agree_with_scoringrules(members):
    """More members than points in a row, and fewer; what lies outside a band may be missing."""
    generator = torch.Generator().manual_seed(members)
    x, y = torch.randn(2, members, 4, 6, 8, generator=generator), torch.randn(2, 4, 6, 8)
    area = np.array([1.0, 2.0, 3.0, 3.0, 2.0, 1.0])
    bands = [np.repeat(np.array(b, float)[:, None], 8, 1)
             for b in ([0, 1, 1, 1, 1, 1], [0, 0, 0.5, 1, 0, 0])]  # fmt: skip
    y[:, :, 0] = x[:, :, :, 0] = torch.nan
    metrics = [EVALUATORS.build("energy_score", area_weights=area, region=b) for b in bands]
    for band, sums in zip(bands, samples_by_region(metrics, x, y), strict=True):
        weight = (area[:, None] * band).flatten()
        root = np.sqrt(weight / weight.sum())[weight > 0]
        inside = [v.flatten(-2).double().numpy()[..., weight > 0] * root for v in (y, x)]
        expected = scoringrules.es_ensemble(*inside, m_axis=1, v_axis=-1, estimator="fair")
        found = sums["energy_score"] / sums["weight"]
        np.testing.assert_allclose(found, expected, rtol=1e-9)
