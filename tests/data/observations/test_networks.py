import numpy as np
import pytest
import torch

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.data.observations import standard_errors
from gapzoo.data.observations.networks import NETWORKS
from gapzoo.data.observations.networks.satellite import ground_track

GRID = Grid(87.5 - np.arange(36) * 5.0, np.arange(72) * 5.0)
CHANNELS = Channels(
    ["temperature@0.3", "temperature@0.8", "surface_pressure", "2m_temperature"], "sigma"
)
LAND = np.zeros(GRID.shape)
LAND[4:14, 10:40] = 1.0  # 20-70 N (edges), 47.5-197.5 E
LAND[24:30, 50:60] = 1.0  # 30-60 S, 247.5-297.5 E
OPTIONS = {
    "random_columns": {"fraction": 0.02},
    "random_points": {"fraction": 0.02},
    "radiosondes": {"land": LAND, "count": 100},
    "surface_stations": {"land": LAND, "count": 100},
    "satellite_tracks": {},
}


def build(name, seed=0, **options):
    return NETWORKS.build(
        name, grid=GRID, channels=CHANNELS, generator=seed, **{**OPTIONS[name], **options}
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_observes_its_channels_and_repeats_by_seed(name):
    operator = build(name)
    # A state that is constant in each channel is seen as that constant.
    x = torch.arange(1.0, 5.0)[:, None, None].expand(operator.shape)
    lower, upper = (operator.channel.float() + 1 + k for k in (-1, 1))
    seen = operator(x)
    assert ((seen > lower) & (seen < upper)).all()
    single = operator.channel >= 2
    torch.testing.assert_close(seen[single], operator.channel[single].float() + 1)
    assert torch.equal(build(name).index, operator.index)
    assert not torch.equal(build(name, seed=1).index, operator.index)
    assert len(standard_errors(operator, CHANNELS)) == len(operator)


def test_points_are_even_on_the_sphere():
    operator = build("random_points", fraction=0.5)
    assert len(operator) == round(0.5 * 4 * 36 * 72)
    sines = torch.sin(torch.deg2rad(operator.latitude))
    # Uniform on -1..1: mean 0 and variance 1/3, to three standard errors of 5184 draws.
    assert abs(sines.mean()) < 0.025 and abs(sines.square().mean() - 1 / 3) < 0.0125


def test_random_points_are_the_same_in_every_process():
    """Levels are drawn in the order of the channels, which is that of every process."""
    labels = [f"{name}@{k}" for name in ("temperature", "u_component_of_wind") for k in (0.2, 0.9)]
    channels = Channels(labels, "sigma")
    found = NETWORKS["random_points"](GRID, channels, 0, fraction=0.001)
    seen = found(torch.arange(1.0, 5.0)[:, None, None].expand(4, *GRID.shape))
    known = [3.549, 1.2638, 1.6183, 1.9844, 1.0206, 3.7202, 1.6707, 1.6131, 3.5412, 3.9996]
    torch.testing.assert_close(seen, torch.tensor(known), atol=1e-4, rtol=0)


def test_radiosondes_stand_on_land_apart_and_mostly_north():
    operator = build("radiosondes", count=150, apart=3e5)
    lat, lon = (a.numpy()[:150] for a in (operator.latitude, operator.longitude))
    north = (lat >= 20) & (lat <= 70) & (lon >= 47.5) & (lon <= 197.5)
    south = (lat <= -30) & (lat >= -60) & (lon >= 247.5) & (lon <= 297.5)
    assert (north | south).all() and north.sum() > 5 * south.sum() > 0
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    point = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], 1)
    apart = 6.371229e6 * np.linalg.norm(point[:, None] - point, axis=-1) + 1e9 * np.eye(150)
    assert apart.min() > 3e5
    assert len(operator) == 4 * 150


def test_surface_stations_see_only_the_surface():
    operator = build("surface_stations")
    assert operator.channel.unique().tolist() == [2, 3] and len(operator) == 200
    with pytest.raises(GapzooError, match="add one as a channel"):
        NETWORKS["surface_stations"](GRID, CHANNELS[:2], 0, land=LAND)
    with pytest.raises(GapzooError, match="share of land"):
        NETWORKS["radiosondes"](GRID, CHANNELS, 0)


def test_ground_track_of_a_polar_orbit():
    seconds = np.arange(0, 86400.0, 10.0)
    lat, lon = (np.rad2deg(a) for a in ground_track(seconds, 0.0))
    # It reaches 180 - 98.7 degrees; a day has 14.2 orbits, so as many northward passes.
    assert abs(lat.max() - 81.3) < 0.01
    northward = np.flatnonzero((lat[1:] > 0) & (lat[:-1] <= 0))
    assert len(northward) == 15
    moved = np.diff(lon[northward])
    moved = (moved + 180) % 360 - 180
    np.testing.assert_allclose(moved, -360 * 101.4 / 1440, atol=0.3)
