import numpy as np
import pytest
import torch

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.data.observations import (
    ColumnStations,
    build_operator,
    simulate,
    standard_errors,
    station_columns,
)

LEVELS = (0.1, 0.3, 0.5, 0.9)
LABELS = [f"{v}@{k}" for v in ("u_component_of_wind", "temperature") for k in LEVELS]
CHANNELS = Channels([*LABELS, "surface_pressure"], "sigma")


def grid_of(height: int = 12, width: int = 24, descending: bool = False) -> Grid:
    latitude = (np.arange(height) + 0.5) * 180 / height - 90
    return Grid(latitude[::-1] if descending else latitude, np.arange(width) * 360 / width)


def fields(grid: Grid, function) -> torch.Tensor:
    """(C,H,W) from a function of latitude, longitude, channel number."""
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    return torch.tensor(
        np.stack([function(lat, lon, c) for c in range(len(CHANNELS))]), dtype=torch.float32
    )


def random_places(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    variable = rng.choice(["u_component_of_wind", "temperature", "surface_pressure"], count)
    level = np.where(variable == "surface_pressure", np.nan, rng.uniform(0.1, 0.9, count))
    return rng.uniform(-90, 90, count), rng.uniform(-180, 540, count), variable, level


def dot_product_gap(operator) -> float:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, *operator.shape, generator=g, dtype=torch.float64)
    y = torch.randn(3, len(operator), generator=g, dtype=torch.float64)
    left, right = (operator(x) * y).sum(), (x * operator.adjoint(y)).sum()
    return float((left - right).abs() / left.abs())


@pytest.mark.parametrize("descending", [False, True])
def test_adjoint_passes_the_dot_product_test(descending):
    operator = build_operator(grid_of(descending=descending), CHANNELS, *random_places(200))
    assert operator.index.shape == (200, 8)
    assert dot_product_gap(operator) < 1e-12


def test_adjoint_is_the_gradient():
    operator = build_operator(grid_of(), CHANNELS, *random_places(50))
    x = torch.randn(2, *operator.shape, requires_grad=True)
    y = torch.randn(2, 50)
    (gradient,) = torch.autograd.grad((operator(x) * y).sum(), x)
    torch.testing.assert_close(gradient, operator.adjoint(y))


@pytest.mark.parametrize("descending", [False, True])
def test_bilinear_and_log_level_reproduce_linear_fields(descending):
    grid = grid_of(descending=descending)
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-80, 80, 300), rng.uniform(0, 345, 300)
    level = rng.uniform(0.1, 0.9, 300)

    def linear(la, lo, c):
        height = np.log(LEVELS[c % 4])
        return 2 * la - 0.3 * lo + 0.01 * la * lo + 7 * height + (100 if c >= 4 else 0)

    operator = build_operator(grid, CHANNELS, lat, lon, np.full(300, "temperature"), level)
    expected = 2 * lat - 0.3 * lon + 0.01 * lat * lon + 7 * np.log(level) + 100
    np.testing.assert_allclose(operator(fields(grid, linear)).numpy(), expected, atol=2e-3)


def test_date_line_joins_the_last_longitude_to_the_first():
    grid = grid_of()
    x = fields(grid, lambda la, lo, c: np.where(lo == 345, 1.0, np.where(lo == 0, 3.0, 50.0)))
    lon = np.array([345.0, 348.75, 352.5, 359.999999999, -7.5, 360.0])
    place = (np.full(6, 7.5), lon, np.full(6, "surface_pressure"), np.full(6, np.nan))
    seen = build_operator(grid, CHANNELS, *place)(x)
    np.testing.assert_allclose(seen.numpy(), [1, 1.5, 2, 3, 2, 3], atol=1e-5)


def test_the_pole_is_crossed_and_vectors_turn_round():
    # A uniform flow across the pole, u = U cos(lon): at the pole it is U cos(lon) for every lon.
    grid = grid_of(height=90)
    x = fields(grid, lambda la, lo, c: np.cos(np.deg2rad(lo)))
    lon = np.array([0.0, 60.0, 180.0])
    for lat in (90.0, -90.0):
        place = (np.full(3, lat), lon)
        wind = build_operator(
            grid, CHANNELS, *place, np.full(3, "u_component_of_wind"), np.full(3, 0.3)
        )
        np.testing.assert_allclose(wind(x).numpy(), [1, 0.5, -1], atol=1e-5)
        scalar = build_operator(grid, CHANNELS, *place, np.full(3, "temperature"), np.full(3, 0.3))
        np.testing.assert_allclose(scalar(x).numpy(), 0, atol=1e-6)


def test_grid_points_are_gathered_exactly():
    grid = grid_of()
    x = torch.randn(2, len(CHANNELS), *grid.shape)
    columns = torch.tensor([[0, 0], [5, 23], [11, 7]])
    lat = np.array(grid.latitude)[columns[:, 0]]
    lon = np.array(grid.longitude)[columns[:, 1]]
    operator = build_operator(
        grid, CHANNELS, lat, lon, np.full(3, "temperature"), np.array([0.1, 0.3, 0.9])
    )
    assert operator.index.shape == (3, 1)
    expected = torch.stack([x[:, 4, 0, 0], x[:, 5, 5, 23], x[:, 7, 11, 7]], -1)
    assert torch.equal(operator(x), expected)
    stations = ColumnStations.at(columns, grid, CHANNELS)
    assert torch.equal(stations(x).unflatten(-1, (9, 3)), x[:, :, columns[:, 0], columns[:, 1]])
    assert dot_product_gap(stations) < 1e-12


def test_scaled_operator_and_offset_observe_the_physical_state():
    grid = grid_of()
    operator = build_operator(grid, CHANNELS, *random_places(80))
    z = torch.randn(2, *operator.shape)
    mean, std = torch.randn(operator.shape) * 10, torch.rand(9, 1, 1) + 0.5
    scaled, offset = operator.scaled(mean, std)
    torch.testing.assert_close(scaled(z) + offset, operator(mean + std * z), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(scaled.rescaled(torch.full((80,), 2.0))(z), 2 * scaled(z))
    rows = torch.tensor([3, 70])
    assert torch.equal(operator.subset(rows)(z), operator(z)[:, rows])
    for made in (scaled, scaled.rescaled(torch.rand(80) + 0.5), operator.subset(rows)):
        assert dot_product_gap(made) < 1e-12


def test_random_columns_are_distinct_nested_and_have_standard_errors():
    grid = grid_of()
    few, many = (station_columns(grid, CHANNELS, f, 3) for f in (0.05, 0.25))
    assert len(few.columns) == 14 and len(many.columns) == 72
    assert torch.equal(many.columns[:14], few.columns)
    assert len(many.columns.unique(dim=0)) == 72
    errors = standard_errors(few, CHANNELS).unflatten(0, (9, 14))
    assert torch.equal(errors[:, 0], torch.tensor([1.0] * 8 + [100.0]))


def test_columns_by_area_are_even_on_the_sphere():
    grid = grid_of(height=90, width=180)
    latitude = np.array(grid.latitude)
    drawn = [
        latitude[station_columns(grid, CHANNELS, 0.05, 1, by_area=b).columns[:, 0]]
        for b in (False, True)
    ]
    poleward = [np.mean(np.abs(lat) > 60) for lat in drawn]
    # A third of the rows, 1 - sin 60 of the area; two standard errors of 810 draws.
    assert abs(poleward[0] - 1 / 3) < 0.034
    assert abs(poleward[1] - (1 - np.sin(np.pi / 3))) < 0.025


def test_simulated_errors_have_the_stated_size_and_repeat():
    grid = grid_of()
    operator = station_columns(grid, CHANNELS, 1.0, 0)
    truth, errors = torch.randn(operator.shape), standard_errors(operator, CHANNELS)
    y = simulate(truth, operator, errors, 5)
    assert torch.equal(y, simulate(truth, operator, errors, torch.Generator().manual_seed(5)))
    scatter = ((y - operator(truth)) / errors).std()
    assert abs(scatter - 1) < 3 / (2 * len(operator)) ** 0.5


def test_bad_input_names_the_fix():
    grid = grid_of()
    here = (np.zeros(1), np.zeros(1))
    with pytest.raises(GapzooError, match=r"observation 0: level 0\.95 lies outside 0\.1 to 0\.9"):
        build_operator(grid, CHANNELS, *here, ["temperature"], [0.95])
    nearest = build_operator(grid, CHANNELS, *here, ["temperature"], [0.95], beyond="nearest")
    assert nearest.channel.item() == 7
    with pytest.raises(GapzooError, match="did you mean 'temperature'"):
        build_operator(grid, CHANNELS, *here, ["temperatur"], [0.5])
    with pytest.raises(GapzooError, match="has no level"):
        build_operator(grid, CHANNELS, *here, ["temperature"], [np.nan])
    with pytest.raises(GapzooError, match="built for"):
        nearest(torch.zeros(1, 2, 3, 4))
    with pytest.raises(GapzooError, match="within the 12x24 grid"):
        ColumnStations.at(torch.tensor([[12, 0]]), grid, CHANNELS)
    with pytest.raises(GapzooError, match="within"):
        station_columns(grid, CHANNELS, 0.0, 0)
