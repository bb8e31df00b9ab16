import numpy as np
import pytest
import torch

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.data.observations.nonlinear import (
    ColumnIntegral,
    StationPressure,
    WindSpeed,
    midway_layers,
    sigma_layers,
)

GRID = Grid(np.arange(12) * 15 - 82.5, np.arange(24) * 15.0)
SIGMA = (0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95)
NAMES = ("u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity")
CHANNELS = Channels([*(f"{n}@{s}" for n in NAMES for s in SIGMA), "surface_pressure"], "sigma")
PLACES = (np.array([10.0, -71.3, 88.0]), np.array([3.0, 359.0, 120.0]))


def state() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(33, 12, 24, generator=g, dtype=torch.float64)
    x[16:24] = 280 + x[16:24]
    x[24:32] = 0.01
    x[32] = 95000 + 500 * x[32]
    return x


def test_layers_of_speedy_are_recovered():
    # SPEEDY's half levels: 0, .05, .14, .26, .42, .60, .77, .90, 1.
    expected = np.diff([0, 0.05, 0.14, 0.26, 0.42, 0.60, 0.77, 0.90, 1.0])
    np.testing.assert_allclose(sigma_layers(np.array(SIGMA)), expected, atol=1e-12)
    np.testing.assert_allclose(sigma_layers(np.array(SIGMA[::-1])), expected[::-1], atol=1e-12)
    np.testing.assert_allclose(sigma_layers(np.array([0.1, 0.9])), [0.5, 0.5])
    np.testing.assert_allclose(midway_layers(np.array([850.0, 500.0, 200.0])), [175, 325, 150])


def test_wind_speed_and_its_derivative():
    operator = WindSpeed.at(GRID, CHANNELS, *PLACES, np.full(3, 0.5))
    x = state()
    u, v = operator.place(x), operator.northward(x)
    torch.testing.assert_close(operator(x), torch.hypot(u, v))
    assert torch.autograd.gradcheck(operator, x.requires_grad_(), fast_mode=True)


def test_column_integral_of_a_constant_is_its_mass():
    operator = ColumnIntegral.at(GRID, CHANNELS, *PLACES)
    x = state()
    expected = 0.01 * operator.pressure(x) / 9.80665
    torch.testing.assert_close(operator(x), expected, rtol=1e-6, atol=0)
    assert torch.autograd.gradcheck(operator, x.requires_grad_(), fast_mode=True)
    levels = Channels(["specific_humidity@200", "specific_humidity@1000"], "pressure")
    total = ColumnIntegral.at(GRID, levels, *PLACES)(torch.full((2, 12, 24), 0.01))
    torch.testing.assert_close(total, torch.full((3,), 0.01 * 80000 / 9.80665))
    with pytest.raises(GapzooError, match="no levels"):
        ColumnIntegral.at(GRID, CHANNELS, *PLACES, "surface_pressure")


def dot_product_gap(operator) -> float:
    """Relative difference of <H x, y> and <x, H^T y>."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, *operator.shape, generator=g, dtype=torch.float64)
    y = torch.randn(2, len(operator), generator=g, dtype=torch.float64)
    left, right = (operator(x) * y).sum(), (x * operator.adjoint(y)).sum()
    return float((left - right).abs() / left.abs())


def test_linear_column_integrals_and_station_pressures_have_adjoints():
    """Exactly linear on pressure levels; elsewhere with the pressure or temperature held."""
    levels = Channels(
        ["specific_humidity@200", "specific_humidity@700", "temperature@850"], "pressure"
    )
    column, x = ColumnIntegral.at(GRID, levels, *PLACES), torch.rand(2, 3, 12, 24)
    linear = column.frozen(x[0])
    torch.testing.assert_close(linear(x), column(x))
    assert dot_product_gap(linear) < 1e-12
    heights = (np.array([1000.0, 0, 0]), torch.zeros(12, 24))
    for operator in (
        ColumnIntegral.at(GRID, CHANNELS, *PLACES),
        StationPressure.at(GRID, CHANNELS, *PLACES, *heights),
    ):
        at = state().float()
        linear = operator.frozen(at)
        torch.testing.assert_close(linear(at), operator(at))
        assert dot_product_gap(linear) < 1e-12
    doubled = at.clone()
    doubled[24:32] *= 2  # twice the humidity at the same surface pressure
    column = ColumnIntegral.at(GRID, CHANNELS, *PLACES)
    torch.testing.assert_close(column.frozen(at)(doubled), column(doubled))


def test_station_pressure_follows_the_standard_atmosphere():
    # 1000 m above the sea at 288.15 K: 898.75 hPa in the standard atmosphere.
    x = torch.zeros(33, 12, 24)
    x[16:24], x[32] = 288.15, 101325.0
    operator = StationPressure.at(GRID, CHANNELS, *PLACES, np.array([1000.0, 0, 0]), x[0])
    expected = torch.tensor([89874.6, 101325.0, 101325.0])
    torch.testing.assert_close(operator(x), expected, rtol=1e-5, atol=0)
    raised = StationPressure.at(
        GRID, CHANNELS, *PLACES, np.array([1000.0, 0, 0]), torch.full((12, 24), 1000.0)
    )
    assert raised(x)[0] == pytest.approx(101325.0) and raised(x)[1] > 113000
    assert torch.autograd.gradcheck(operator, state().requires_grad_(), fast_mode=True)
