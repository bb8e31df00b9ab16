"""RMSE, bias, MAE against scores; where the root is taken."""

import numpy as np
import pytest
import scores.continuous
import torch
import xarray as xr


def _arrays(case):
    kept = ["b", "l", "c", "h", "w"]
    mean = case.forecast.double().mean(1).numpy()
    return xr.DataArray(mean, dims=kept), xr.DataArray(case.truth.double().numpy(), dims=kept)


@pytest.mark.parametrize(
    ("name", "theirs"), [("rmse", "rmse"), ("mae", "mae"), ("bias", "additive_bias")]
)
def test_agrees_with_scores(case, name, theirs):
    weights = xr.DataArray(case.grid.area_weights, dims=["h"])
    expected = getattr(scores.continuous, theirs)(
        *_arrays(case), preserve_dims=["l", "c"], weights=weights
    )
    np.testing.assert_allclose(case.score(name), expected.values, rtol=1e-5, atol=1e-6)


def test_root_is_taken_once(case):
    case.truth = torch.zeros_like(case.truth)
    case.forecast = torch.ones_like(case.forecast)
    case.forecast[1:] = 3.0
    torch.testing.assert_close(case.score("rmse")[0, 0].item(), ((1 + 4 * 9) / 5) ** 0.5)


def test_member_rmse_holds_mean_error_and_spread(case):
    mean, member = case.score("rmse"), case.score("member_rmse")
    spread = case.score("spread")
    torch.testing.assert_close(
        member.square(), mean.square() + spread.square() * 5 / 6, rtol=1e-6, atol=0
    )


def test_area_weights_of_known_rows(case):
    np.testing.assert_allclose(
        case.grid.area_weights, 3 * np.array([0.13397, 0.36603, 0.5, 0.5, 0.36603, 0.13397]),
        atol=3e-5,
    )  # fmt: skip
    case.truth = torch.zeros_like(case.truth)
    case.forecast = torch.zeros_like(case.forecast)
    case.forecast[..., 0, :] = 1.0
    assert case.score("bias")[0, 0].item() == pytest.approx((1 - np.sin(np.pi / 3)) / 2)


@pytest.mark.parametrize("name", ["rmse", "bias", "mae", "spread", "spread_skill", "crps"])
def test_offset_does_not_cost_precision(case, name):
    case.forecast, case.truth = (case.forecast * 64).round() / 64, (case.truth * 64).round() / 64
    expected = case.score(name)
    case.forecast, case.truth = case.forecast + 1e5, case.truth + 1e5
    torch.testing.assert_close(case.score(name), expected, rtol=1e-5, atol=1e-6)
