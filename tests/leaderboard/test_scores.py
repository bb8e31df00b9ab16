"""Scores of ensembles whose scores are known: calibrated, biased, weighted, scaled."""

import base64
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from boards import columns_world
from scipy import stats
from worlds import flat_world

from gapzoo.core import Channels
from gapzoo.core.climatology import Climatology
from gapzoo.core.pressure import HEADLINE, headline
from gapzoo.evaluators import EVALUATORS
from gapzoo.leaderboard.scores import Scores, packed
from gapzoo.leaderboard.statistics import headlines

M, CASES = 8, 40


def scored(world, signal: float, error: float, seed: int = 0, estimator: str = "fair") -> Scores:
    """Truth and members are one signal and each its own error."""
    g = torch.Generator().manual_seed(seed)
    found = Scores(world, estimator)
    for _ in range(CASES):
        s = signal * torch.randn(world.shape, generator=g)
        draws = error * torch.randn(M + 1, *world.shape, generator=g)
        found.add(s + draws[1:], s + draws[0])
    return found


@pytest.fixture(scope="module")
def world():
    return flat_world(2, 8, 16)


@pytest.fixture(scope="module")
def calibrated(world):
    return scored(world, signal=0.8, error=0.6)


def test_a_calibrated_ensemble(calibrated):
    """Of 10 240 points: fair CRPS e / sqrt(pi), RMSE e sqrt(1 + 1/M), spread over skill 1."""
    found = calibrated.summary()
    assert found["crps"] == pytest.approx(0.6 / np.sqrt(np.pi), rel=0.02)
    assert found["rmse"] == pytest.approx(0.6 * np.sqrt(1 + 1 / M), rel=0.02)
    assert found["spread_skill"] == pytest.approx(1.0, abs=0.02)
    expected = 0.64 / np.sqrt((0.64 + 0.36 / M) * 1.0)
    assert found["acc"] == pytest.approx(expected, abs=0.01)
    assert sum(found["ranks"]) == CASES * 2 * 8 * 16
    assert stats.chisquare(found["ranks"]).pvalue > 1e-3


def test_an_ensemble_without_skill(world):
    found = scored(world, signal=0.0, error=1.0).summary()
    assert found["acc"] == pytest.approx(0.0, abs=0.03)
    assert found["crps"] == pytest.approx(1 / np.sqrt(np.pi), rel=0.02)


def test_a_narrow_ensemble_is_seen(world):
    """Members of half the spread: spread over skill sqrt((M+1)/M 0.25 / (1 + 0.25/M))."""
    g = torch.Generator().manual_seed(1)
    found = Scores(world)
    for _ in range(CASES):
        found.add(0.5 * torch.randn(M, *world.shape, generator=g),
                  torch.randn(world.shape, generator=g))  # fmt: skip
    known = np.sqrt((M + 1) / M * 0.25 / (1 + 0.25 / M))
    found = found.summary()
    assert found["spread_skill"] == pytest.approx(known, rel=0.02)
    assert found["ranks"][0] > 2 * found["ranks"][M // 2] < found["ranks"][M]


def test_a_single_member_has_neither_spread_nor_ranks(world):
    """And its CRPS is the absolute error: a constant bias of 0.7."""
    found = Scores(world, "biased")
    truth = torch.randn(world.shape, generator=torch.Generator().manual_seed(0))
    found.add(truth[None] + 0.7, truth)
    summary = found.summary()
    assert summary["crps"] == pytest.approx(0.7, rel=1e-5) == pytest.approx(summary["rmse"])
    assert "spread_skill" not in summary and "ranks" not in summary


def test_areas_weigh(world):
    """An error of 1 in the southernmost row alone: its share of the sphere."""
    found = Scores(world, "biased")
    error = torch.zeros(1, *world.shape)
    error[:, :, 0] = 1.0
    found.add(error, torch.zeros(world.shape))
    edge = np.sin(np.deg2rad(-90 + 22.5))
    assert found.summary()["rmse"] == pytest.approx(np.sqrt((edge + 1) / 2), rel=1e-5)
    assert found.summary()["crps"] == pytest.approx((edge + 1) / 2, rel=1e-5)


def test_channels_are_in_si_units_and_the_headline_in_spreads(world, calibrated):
    """Spreads of 3 and 200 change the numbers by channel and nothing else."""
    variance = world.climatology.variance_coefficients * np.array([9.0, 4e4]).reshape(1, 2, 1, 1)
    climatology = Climatology(world.climatology.mean_coefficients, variance.astype(np.float32))
    wide = scored(dataclasses.replace(world, climatology=climatology), 0.8, 0.6).summary()
    flat = calibrated.summary()
    for name in ("crps", "rmse", "acc", "spread_skill"):
        assert wide[name] == pytest.approx(flat[name], rel=1e-4), name
    for label, factor in zip(world.channels.labels, (3, 200), strict=True):
        for name in ("crps_by_channel", "rmse_by_channel"):
            assert wide[name][label] == pytest.approx(factor * flat[name][label], rel=1e-4)


def test_cases_average_to_the_headline(calibrated):
    found = calibrated.summary()
    terms = {name: np.array(values["mean"]) for name, values in found["by_case"].items()}
    assert all(len(term) == CASES for term in terms.values())
    assert terms["crps"].mean() == pytest.approx(found["crps"], rel=1e-5)
    assert np.sqrt(terms["squared_error"].mean()) == pytest.approx(found["rmse"], rel=1e-5)
    ratio = np.sqrt(terms["corrected_variance"].mean() / terms["squared_error"].mean())
    assert ratio == pytest.approx(found["spread_skill"], rel=1e-5)
    by_channel = np.array(list(found["rmse_by_channel"].values()))
    assert np.sqrt((by_channel**2).mean()) == pytest.approx(found["rmse"], rel=1e-4)


def test_the_estimator_is_the_one_that_was_named(world):
    """The biased estimator exceeds the fair one by the mean member difference / (2 M)."""
    fair, plain = (scored(world, 0, 1, estimator=e).summary()["crps"] for e in ("fair", "biased"))
    assert plain - fair == pytest.approx(2 / np.sqrt(np.pi) / (2 * M), rel=0.02)


def test_headline_fields_are_those_of_the_pressure_module():
    """Scores of Z500 and its like from whole fields, by the evaluators, to the same numbers."""
    world, g = columns_world(), torch.Generator().manual_seed(2)
    time = pd.Timestamp("2006-07-01")
    found, pairs = Scores(world), []
    for _ in range(3):
        drawn = 0.5 * torch.randn(M + 1, *world.shape, generator=g)
        found.add(drawn[1:], drawn[0], time)
        states = world.denormalise(drawn[None], pd.DatetimeIndex([time]))[0]
        pairs.append(headline(states, world)[0])
    fields = torch.stack(pairs)
    climate = headline(world.mean(pd.DatetimeIndex([time])), world)[0].expand(3, -1, -1, -1)
    scores = found.summary(maps=True)
    options = {"acc": {"order": "pooled"}}
    for name in ("crps", "rmse", "acc", "spread_skill"):
        metric = EVALUATORS.build(
            name, area_weights=world.grid.area_weights, **options.get(name, {})
        )
        metric.update(fields[:, 1:], fields[:, 0], climatology=climate)
        known = dict(zip(HEADLINE, metric.compute().tolist(), strict=True))
        assert {k: v[name] for k, v in scores["headline"].items()} == pytest.approx(known, rel=1e-3)
    cases = scores["by_case"]["crps"]["geopotential@500"]
    assert len(cases) == 3
    assert np.mean(cases) == pytest.approx(scores["headline"]["geopotential@500"]["crps"], rel=1e-4)
    assert set(scores["spectrum_ratio"]) == {"mean", *HEADLINE}
    assert set(scores["spread_skill_by_wavenumber"]) == {"mean", *HEADLINE}


def test_maps_hold_error_and_spread(world):
    """Unpacked to half a step: of root-mean-square errors over cases, point by point."""
    world, g = columns_world(), torch.Generator().manual_seed(3)
    found, time, errors = Scores(world), pd.Timestamp("2006-01-01"), []
    for _ in range(2):
        drawn = torch.randn(3, *world.shape, generator=g)
        found.add(drawn[1:], drawn[0], time)
        states = world.denormalise(drawn[None], pd.DatetimeIndex([time]))[0]
        fields = headline(states, world)[0][:, 0]
        errors.append((fields[1:].mean(0) - fields[0]) ** 2)
    kept = found.summary(maps=True)["maps"]["geopotential@500"]["rmse"]
    data = np.frombuffer(base64.b64decode(kept["data"]), np.uint8).reshape(kept["shape"])
    values = kept["low"] + data / 255 * (kept["high"] - kept["low"])
    step = (kept["high"] - kept["low"]) / 255
    assert np.abs(values - torch.stack(errors).mean(0).sqrt().numpy()).max() < 0.6 * step
    assert "maps" not in found.summary()


def test_spectra_of_a_smoothed_ensemble(world):
    """Members of half the truth's amplitude have a quarter of its power at every wavenumber."""
    g = torch.Generator().manual_seed(4)
    found = Scores(world)
    for _ in range(CASES):
        found.add(0.5 * torch.randn(M, *world.shape, generator=g),
                  torch.randn(world.shape, generator=g))  # fmt: skip
    ratio = found.summary()["spectrum_ratio"]["mean"]
    assert len(ratio) == 16 // 3 + 1 and ratio == pytest.approx([0.25] * 6, rel=0.2)


def test_spread_over_error_is_told_by_wavenumber(world):
    """Members of half the amplitude in wavenumber 2 and twice in the zonal mean; a single one."""
    g, width = torch.Generator().manual_seed(4), world.shape[-1]
    found, alone = Scores(world), Scores(world)
    factor = torch.ones(width // 2 + 1)
    factor[0], factor[2] = 2.0, 0.5
    for _ in range(CASES):
        truth = torch.randn(world.shape, generator=g)
        members = torch.randn(M, *world.shape, generator=g)
        members = torch.fft.irfft(torch.fft.rfft(members) * factor, n=width)
        found.add(members, truth)
        alone.add(members[:1], truth)
    spread = factor[: width // 3 + 1].numpy() ** 2 * (1 + 1 / M)
    wanted = np.sqrt(spread / (1 + spread / (M + 1)))
    ratio = found.summary()["spread_skill_by_wavenumber"]
    assert ratio["mean"] == pytest.approx(list(wanted), rel=0.1)
    assert "spread_skill_by_wavenumber" not in alone.summary()


def test_worlds_without_whole_columns_have_no_headline_fields(world):
    assert headlines(world) == ()
    assert headlines(columns_world()) == HEADLINE
    pressure = dataclasses.replace(
        world, channels=Channels(["geopotential@500", "temperature@500"])
    )
    assert headlines(pressure) == ("geopotential@500",)


def test_packed_fields_keep_what_is_missing():
    """One step of 256 says so; the rest are kept to half a step."""
    field = np.linspace(-2, 3, 12).reshape(3, 4)
    field[1, 2] = np.nan
    found = packed(field)
    steps = np.frombuffer(base64.b64decode(found["data"]), np.uint8).reshape(3, 4)
    assert found["missing"] and (steps == 255).tolist() == np.isnan(field).tolist()
    values = found["low"] + steps / 254 * (found["high"] - found["low"])
    there = np.isfinite(field)
    assert np.abs(values - field)[there].max() <= 0.5 * 5 / 254 + 1e-9
    assert "missing" not in packed(np.zeros((2, 2)))
    nothing = packed(np.full((2, 2), np.nan))
    assert np.isfinite([nothing["low"], nothing["high"]]).all()
