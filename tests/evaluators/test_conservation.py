"""Column budgets by hand, and layer thicknesses of SPEEDY."""

import numpy as np
import pytest
import torch

from gapzoo.core import Channels, GapzooError
from gapzoo.evaluators.conservation import (
    GRAVITY,
    HEAT_CAPACITY,
    LATENT_HEAT,
    dry_mass,
    energy,
    moisture,
    sigma_thickness,
)

SPEEDY = (0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95)
EDGES = (0, 0.05, 0.14, 0.26, 0.42, 0.6, 0.77, 0.9, 1)


def test_thickness_of_speedy_layers_in_either_order():
    np.testing.assert_allclose(sigma_thickness(SPEEDY), np.diff(EDGES), rtol=1e-12)
    np.testing.assert_allclose(sigma_thickness(SPEEDY[::-1]), np.diff(EDGES)[::-1], rtol=1e-12)
    with pytest.raises(GapzooError, match="no mid-points"):
        sigma_thickness([0.2, 0.9])


def test_budgets_of_a_uniform_atmosphere():
    dsigma = torch.as_tensor(np.diff(EDGES))
    full = torch.ones(8, 2, 3, dtype=torch.float64)
    state = {
        "specific_humidity": 0.01 * full,
        "temperature": 250 * full,
        "u_component_of_wind": 3 * full,
        "v_component_of_wind": -4 * full,
        "surface_pressure": 98066.5 * full[0],
    }
    assert moisture(state, dsigma).numpy() == pytest.approx(np.full((2, 3), 100.0))
    assert dry_mass(state, dsigma).numpy() == pytest.approx(np.full((2, 3), 9900.0))
    expected = 1e4 * (HEAT_CAPACITY * 250 + 12.5 + LATENT_HEAT * 0.01)
    assert energy(state, dsigma).numpy() == pytest.approx(np.full((2, 3), expected))
    raised = {**state, "geopotential_at_surface": 700 * full[0]}
    assert energy(raised, dsigma).numpy() == pytest.approx(np.full((2, 3), expected + 7e6))


def test_metrics_are_area_mean_differences(case):
    p, area = slice(8, 9), case.grid.area_weights[:, None]
    case.truth[:, :, p] = 1e5
    case.forecast = case.truth[:, None].expand(-1, 3, -1, -1, -1, -1).clone()
    case.forecast[:, :, 1, 6] += 1e-3
    water = 1e-3 * 0.5 * 1e5 / GRAVITY
    assert case.score("moisture").numpy() == pytest.approx([0, water], rel=1e-3)
    assert case.score("dry_mass").numpy() == pytest.approx([0, -water], rel=1e-3)
    assert case.score("energy").numpy() == pytest.approx(
        [0, water * LATENT_HEAT], rel=1e-3, abs=1e-3
    )
    case.forecast[:, :, 0, 8, 0] += 10.0
    q = case.truth[:, 0, 6:8].double().mean(1)[:, 0].mean()
    share = area[0, 0] / area.mean() / 6 * 10 / GRAVITY
    assert case.score("dry_mass")[0].item() == pytest.approx(share * (1 - q).item(), rel=1e-5)


def test_channels_that_lack_something_are_named(case):
    with pytest.raises(GapzooError, match="sigma levels"):
        case.build("dry_mass", channels=Channels(["specific_humidity@500", "surface_pressure"]))
    with pytest.raises(GapzooError, match="no variable 'surface_pressure'"):
        case.build("moisture", channels=Channels(["specific_humidity@0.5"], "sigma"))
