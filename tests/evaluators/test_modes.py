"""Modes: a planted one is found, scikit-learn's principal components agree, scores by hand."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from gapzoo.core import GapzooError, Grid
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.modes import leading, project
from gapzoo.evaluators.regions import region_weights

LAT = -85 + 10 * np.arange(18.0)
GRID = Grid(tuple(LAT), tuple(np.arange(24) * 15.0))
SAMPLES = 400
SCORES = ("forecast_share", "truth_share", "pattern_correlation", "variance_ratio", "correlation")


def _dipole():
    """Low over Iceland, high over the Azores: the NAO's positive phase, hPa."""
    lat, lon = np.meshgrid(LAT, GRID.longitude, indexing="ij")
    away = (lon - 335 + 180) % 360 - 180

    def bump(north):
        return np.exp(-(((lat - north) / 12) ** 2) - (away / 30) ** 2)

    return 6 * bump(40) - 8 * bump(65)


def _annular():
    """A see-saw of zonal means between middle and high latitudes, both hemispheres alike."""
    shape = np.exp(-(((abs(LAT) - 45) / 12) ** 2)) - np.exp(-(((abs(LAT) - 75) / 12) ** 2))
    return np.repeat(5 * shape[:, None], 24, 1)


def _planted(pattern, scale=1.0, noise=0.3, correlation=1.0, seed=0):
    """Forecast (B,2,1,H,W), truth (B,1,H,W) and the truth's index: variance exactly 1."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=SAMPLES)
    t = (t - t.mean()) / t.std()
    s = correlation * t[:, None] + np.sqrt(1 - correlation**2) * rng.normal(size=(SAMPLES, 2))
    grain = noise * rng.normal(size=(3, SAMPLES, *GRID.shape))
    truth = 1000 + t[:, None, None] * pattern + grain[0]
    x = 990 + scale * s[..., None, None] * pattern + np.stack([grain[1], grain[2]], 1)
    return torch.tensor(x)[:, :, None].float(), torch.tensor(truth)[:, None].float(), t


def _metric(name, region):
    weight = region_weights(region, GRID)
    return EVALUATORS.build(name, area_weights=GRID.area_weights, region=weight)


def _points(field, region):
    """Points of a region (N,K) float64 numpy and their areas (K,)."""
    weight = GRID.area_weights[:, None] * region_weights(region, GRID)
    return field.double().numpy().reshape(-1, weight.size)[:, weight.ravel() > 0], weight[
        weight > 0
    ]


@pytest.mark.parametrize(
    ("name", "region", "pattern"),
    [
        ("leading_mode", "north_atlantic_sector", _dipole()),
        ("annular_mode", "northern_extratropics", _annular()),
        ("annular_mode", "southern_extratropics", _annular()),
    ],
)
def test_a_planted_mode_is_found(name, region, pattern):
    forecast, truth, _ = _planted(pattern)
    inside = region_weights(region, GRID) > 0
    found = _metric(f"{name}_pattern", region)
    found.update(forecast, truth)
    map_of = found.compute()[0]
    if name == "annular_mode":
        map_of, inside, pattern = map_of[..., None], inside[:, :1], pattern[:, :1]
    for source in map_of.numpy():
        assert np.isnan(source[~inside]).all()
        np.testing.assert_allclose(source[inside], pattern[inside], atol=0.25)
    score = _metric(name, region)
    score.update(forecast, truth)
    found = dict(zip(SCORES, score.compute()[0].tolist(), strict=True))
    assert found["pattern_correlation"] > 0.995
    assert found["variance_ratio"] == pytest.approx(1, abs=0.02)
    assert found["correlation"] > 0.99
    assert found["truth_share"] > 0.8


def test_scores_of_a_stronger_half_related_forecast():
    pattern = _dipole()
    forecast, truth, t = _planted(pattern, scale=1.5, correlation=0.6)
    score = _metric("leading_mode", "north_atlantic_sector")
    score.update(forecast, truth)
    found = dict(zip(SCORES, score.compute()[0].tolist(), strict=True))
    x, weight = _points(forecast, "north_atlantic_sector")
    y, _ = _points(truth, "north_atlantic_sector")
    pca = PCA(1).fit(y * np.sqrt(weight))
    index = ((x * np.sqrt(weight)) @ pca.components_[0]).reshape(SAMPLES, 2)
    own = (y * np.sqrt(weight)) @ pca.components_[0]
    ratio = index.var() / own.var()  # members about their common mean
    assert found["variance_ratio"] == pytest.approx(ratio, rel=1e-6)
    assert abs(found["variance_ratio"] - 2.25) < 0.3
    both = np.cov(index.ravel(), own.repeat(2), ddof=0)
    expected = both[0, 1] / np.sqrt(both[0, 0] * both[1, 1])
    assert found["correlation"] == pytest.approx(expected, rel=1e-6)
    assert abs(found["correlation"] - 0.6) < 0.12
    assert abs(np.corrcoef(own, t)[0, 1]) > 0.99


@pytest.mark.parametrize("name", ["leading_mode", "annular_mode"])
def test_shares_and_patterns_agree_with_scikit_learn(name):
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(18 * 24, 18 * 24, generator=generator).double() / 20
    forecast = (torch.randn(60, 3, 1, 432, generator=generator).double() @ mix).unflatten(
        -1, (18, 24)
    )
    truth = (torch.randn(60, 1, 432, generator=generator).double() @ mix).unflatten(-1, (18, 24))
    region = "northern_extratropics"
    found, score = _metric(f"{name}_pattern", region), _metric(name, region)
    for metric in (found, score):
        metric.update(forecast, truth)
    for i, field in enumerate((forecast, truth)):
        points, weight = _points(field, region)
        if name == "annular_mode":
            rows = weight.reshape(-1, 24)
            points, weight = points.reshape(len(points), -1, 24).mean(-1), rows.sum(-1)
        pca = PCA(2).fit(points * np.sqrt(weight))
        spread = np.sqrt(pca.explained_variance_[0] * (len(points) - 1) / len(points))
        expected = pca.components_[0] * spread / np.sqrt(weight)
        assert score.compute()[0, i].item() == pytest.approx(
            pca.explained_variance_ratio_[0], rel=1e-9
        )
        ours = found.compute()[0, i].numpy()
        ours = ours[np.isfinite(ours)]
        ours *= np.sign(ours @ expected)
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8)


def test_an_index_has_unit_variance_and_the_planted_values():
    _, truth, t = _planted(_dipole(), noise=0.05)
    points, weight = (torch.tensor(v) for v in _points(truth, "north_atlantic_sector"))
    anomalies = points - points.mean(0)
    pattern, share = leading(anomalies.mT @ anomalies / SAMPLES, weight)
    index = project(anomalies, pattern, weight)
    assert index.var(correction=0).item() == pytest.approx(1, rel=1e-9)
    assert abs(np.corrcoef(index, t)[0, 1]) == pytest.approx(1, abs=1e-3)
    assert 0.99 < share.item() < 1


def test_anomalies_are_from_the_climatology():
    forecast, truth, _ = _planted(_dipole())
    season = 30 * np.sin(np.arange(SAMPLES) / 20)[:, None, None, None]
    climatology = torch.tensor(np.broadcast_to(season, truth.shape).copy()).float()
    plain, given = (_metric("leading_mode", "north_atlantic_sector") for _ in range(2))
    plain.update(forecast, truth)
    given.update(forecast + climatology[:, None], truth + climatology, climatology=climatology)
    torch.testing.assert_close(given.compute(), plain.compute(), rtol=1e-4, atol=1e-4)


def test_too_many_points_are_refused():
    grid = Grid(tuple(-89 + 2 * np.arange(90.0)), tuple(np.arange(180) * 2.0))
    metric = EVALUATORS.build("leading_mode", area_weights=grid.area_weights)
    with pytest.raises(GapzooError, match="a leading mode of 16200 points; give a smaller region"):
        metric.update(torch.zeros(1, 1, 1, 90, 180), torch.zeros(1, 1, 90, 180))
