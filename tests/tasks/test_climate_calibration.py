"""Departures drawn from the model that is fitted; what cannot be told; bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from worlds import flat_world

from gapzoo.core import GapzooError
from gapzoo.tasks.calibration import Calibration, calibrate

TIME = pd.Timestamp("2008-12-08T12")


def bias_of(latitude: np.ndarray) -> np.ndarray:
    return 4 * np.sin(np.deg2rad(2 * latitude)) - 2


def drawn(count: int = 300, seed: int = 0, channel: int = 0) -> pd.DataFrame:
    """Departures at random places with the bias, amplitude, error and length above."""
    rng = np.random.default_rng(seed)
    lat, lon = np.rad2deg(np.arcsin(rng.uniform(-0.98, 0.98, count))), rng.uniform(0, 360, count)
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    unit = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], 1)
    near = 6.371e6**2 * (2 - 2 * unit @ unit.T).clip(0)
    factor = np.linalg.cholesky(np.exp(-near / 2 / 8e5**2) + 1e-8 * np.eye(count))
    spread = 2 + np.abs(lat) / 45
    weather = 1.6 * spread * (factor @ rng.standard_normal(count))
    noise = 1.2 * rng.standard_normal(count)
    columns = {"latitude": lat, "longitude": lon, "spread": spread, "error": 1.0}
    departure = bias_of(lat) + weather + noise
    return pd.DataFrame({**columns, "channel": channel, "departure": departure})


WORLD = flat_world(channels=2, height=32, width=64)


def test_bias_amplitude_and_error_are_found_again():
    one = calibrate(WORLD, drawn())
    latitude = np.array(WORLD.grid.latitude)
    inner = np.abs(latitude) < 70
    # 300 places with spread 2.5 * 1.6 in some 150 independent ones, 20 a band: 0.9 a band.
    assert np.sqrt(np.mean((one.bias[0] - bias_of(latitude))[inner] ** 2)) < 1.0
    assert one.amplitude[0] == pytest.approx(1.6, rel=0.15)
    assert one.error[0] == pytest.approx(1.2, rel=0.4)
    assert one.count.tolist() == [300, 0]
    # The channel that was not seen keeps the simulator's climate.
    assert not one.bias[1].any() and one.amplitude[1] == 1 and np.isnan(one.error[1])


def test_outliers_levels_of_a_place_and_known_errors():
    clean = drawn()
    spoilt = pd.concat([clean, clean.iloc[:3].assign(departure=[150.0, -200.0, 90.0])])
    spoilt["longitude"] += 1e-5 * np.arange(len(spoilt))  # rounding of averaged places
    plain, robust = calibrate(WORLD, clean), calibrate(WORLD, spoilt)
    assert robust.amplitude[0] == pytest.approx(plain.amplitude[0], rel=0.05)
    np.testing.assert_allclose(robust.bias[0], plain.bias[0], atol=0.5)
    assert robust.count[0] == 300
    known = calibrate(WORLD, clean, {0: 0.7})
    assert known.error[0] == pytest.approx(0.7, rel=0.01)


def test_few_places_change_nothing_and_bad_spreads_are_refused():
    one = calibrate(WORLD, drawn(5))
    assert not one.bias.any() and (one.amplitude == 1).all() and one.count[0] == 0
    with pytest.raises(GapzooError, match="positive climatological spreads"):
        calibrate(WORLD, drawn(20).assign(spread=0.0))


def test_states_are_moved_and_stretched():
    one = calibrate(WORLD, drawn())
    z = torch.randn(3, *WORLD.shape)
    expected = torch.from_numpy(one.bias).float()[..., None] + z * one.amplitude[0]
    torch.testing.assert_close(one.physical(z, WORLD, TIME)[:, 0], expected[:, 0])
    torch.testing.assert_close(one.physical(z, WORLD, TIME)[:, 1], z[:, 1])
    plain = Calibration.none(WORLD)
    torch.testing.assert_close(one.only().mean(WORLD, TIME), plain.mean(WORLD, TIME))
    torch.testing.assert_close(one.only("bias").scale(WORLD), plain.scale(WORLD))
    torch.testing.assert_close(one.only("amplitude").spread(WORLD, TIME), one.spread(WORLD, TIME))
