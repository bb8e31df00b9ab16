"""Column budgets by hand, and layer thicknesses of SPEEDY."""

import numpy as np
import pytest
import torch
import xarray as xr

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


def test_budgets_agree_with_xarrays_integrals():
    """Mass-weighted sums over cells between half levels, of a state that varies everywhere."""
    rng = np.random.default_rng(0)
    names = ("temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity")
    size = {"temperature": 250.0, "specific_humidity": 5e-3}
    fields = {n: size.get(n, 8.0) * rng.uniform(0.5, 1.5, (8, 2, 3)) for n in names}
    fields["surface_pressure"] = rng.uniform(7e4, 1.05e5, (2, 3))
    dims = {n: ["sigma", "y", "x"][-v.ndim :] for n, v in fields.items()}
    data = xr.Dataset({n: (dims[n], v) for n, v in fields.items()})
    half = xr.DataArray(np.array(EDGES), dims="sigma") * data.surface_pressure
    mass = half.diff("sigma") / GRAVITY  # of a layer, kg m-2
    water = mass.dot(data.specific_humidity, "sigma")
    winds = 0.5 * (data.u_component_of_wind**2 + data.v_component_of_wind**2)
    heat = HEAT_CAPACITY * data.temperature + LATENT_HEAT * data.specific_humidity
    state = {n: torch.as_tensor(v) for n, v in fields.items()}
    dsigma = torch.as_tensor(np.diff(EDGES))
    for budget, expected in (
        (moisture, water),
        (dry_mass, mass.sum("sigma") - water),
        (energy, mass.dot(heat + winds, "sigma")),
    ):
        found = budget(state, dsigma).numpy()
        np.testing.assert_allclose(found, expected.transpose("y", "x"), rtol=1e-12)


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
