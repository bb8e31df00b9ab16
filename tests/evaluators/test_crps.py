"""CRPS: closed forms, other libraries, fairness, units far from zero."""

import numpy as np
import pytest
import scores.probability
import scoringrules
import torch
import xarray as xr

from gapzoo.evaluators.crps import CRPS, ensemble_crps, gaussian_crps

AT_ZERO = 0.23369498
"""CRPS of N(0,1) at 0."""


@pytest.fixture
def ensemble():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 11, 2, 4, 5, generator=generator), torch.randn(
        3, 2, 4, 5, generator=generator
    )


@pytest.mark.parametrize(("estimator", "theirs"), [("fair", "fair"), ("biased", "nrg")])
def test_agrees_with_scoringrules(ensemble, estimator, theirs):
    forecast, truth = ensemble
    expected = scoringrules.crps_ensemble(
        truth.double().numpy(), forecast.double().numpy(), m_axis=1, estimator=theirs
    )
    found = ensemble_crps(forecast, truth, estimator)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("estimator", "method"), [("fair", "fair"), ("biased", "ecdf")])
def test_weighted_mean_agrees_with_scores(ensemble, estimator, method):
    forecast, truth = ensemble
    area = np.array([0.3, 1.2, 1.9, 0.6])
    names = ["b", "e", "h", "w"]
    expected = scores.probability.crps_for_ensemble(
        xr.DataArray(forecast.numpy(), dims=["b", "m", "e", "h", "w"]),
        xr.DataArray(truth.numpy(), dims=names),
        "m",
        method=method,
        preserve_dims=["e"],
        weights=xr.DataArray(area, dims=["h"]),
    )
    metric = CRPS(area, estimator=estimator)
    metric.update(forecast, truth)
    np.testing.assert_allclose(metric.compute().numpy(), expected.values, rtol=1e-5)


def test_blocks_and_the_torch_path_agree(ensemble, monkeypatch):
    import gapzoo.evaluators.crps as module

    forecast, truth = ensemble
    whole = ensemble_crps(forecast, truth)
    monkeypatch.setattr(module, "BLOCK_FLOATS", 11 * 7)
    torch.testing.assert_close(ensemble_crps(forecast, truth), whole)
    coefficients = module._spread_coefficients(11, "fair")
    torch.testing.assert_close(module._crps_torch(forecast, truth, coefficients), whole)


def test_one_member_scores_its_absolute_error(ensemble):
    forecast, truth = ensemble
    for estimator in ("fair", "biased"):
        found = ensemble_crps(forecast[:, :1], truth, estimator)
        assert torch.equal(found, (forecast[:, 0] - truth).abs())


def test_two_members_by_hand():
    forecast, truth = torch.tensor([1.0, 4.0]).view(1, 2, 1, 1), torch.tensor([[[2.0]]])
    assert ensemble_crps(forecast, truth, "fair").item() == pytest.approx(1.5 - 1.5)
    assert ensemble_crps(forecast, truth, "biased").item() == pytest.approx(1.5 - 0.75)
    assert forecast.flatten().tolist() == [1, 4]


@pytest.mark.parametrize("members", [2, 5, 50])
def test_fair_estimator_expects_the_closed_form_at_any_size(members):
    points = 40_000
    forecast = torch.randn(1, members, 1, points, generator=torch.Generator().manual_seed(3))
    fields = ensemble_crps(forecast, torch.zeros(1, 1, points)).double()
    assert abs(fields.mean() - AT_ZERO) < 4 * fields.std() / points**0.5
    biased = ensemble_crps(forecast, torch.zeros(1, 1, points), "biased").double().mean()
    expected = AT_ZERO + (1 / np.sqrt(np.pi)) / members
    assert abs(biased - expected) < 4 * fields.std() / points**0.5


def test_offset_does_not_cost_precision(ensemble):
    forecast, truth = ((x * 64).round() / 64 for x in ensemble)
    shifted = ensemble_crps(forecast + 1e5, truth + 1e5)
    torch.testing.assert_close(shifted, ensemble_crps(forecast, truth))


def test_gaussian_known_answer_and_scoringrules():
    zero = torch.zeros((), dtype=torch.float64)
    assert gaussian_crps(zero, zero + 1, zero).item() == pytest.approx(AT_ZERO, abs=1e-8)
    rng = np.random.default_rng(0)
    mean, std, truth = rng.normal(size=(4, 5)), rng.uniform(0.1, 3, size=5), rng.normal(size=(4, 5))
    found = gaussian_crps(*(torch.as_tensor(a) for a in (mean, std, truth)))
    np.testing.assert_allclose(found, scoringrules.crps_normal(truth, mean, std), rtol=1e-12)
