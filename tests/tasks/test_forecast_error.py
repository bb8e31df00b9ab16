"""A forecaster's own errors: known where the truth is an AR(1) process."""

import numpy as np
import pytest
import torch
from worlds import MEMORY, SPREAD, toy_archive

from gapzoo.data.module import Reader, world_of
from gapzoo.diffusion.covariance import SpectralCovariance
from gapzoo.forecasters import FORECASTERS
from gapzoo.forecasters.base import Forecaster
from gapzoo.tasks.forecast_error import error_covariance, forecast_pairs


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    archive = toy_archive(
        tmp_path_factory.mktemp("error") / "toy.zarr", ("1979-01-01", "1980-12-31")
    )
    return Reader(archive, world_of(archive))


def test_errors_of_persistence_are_the_changes_of_the_truth(reader):
    """In SI units, and none across a joint of runs or beyond the end."""
    persistence = FORECASTERS.build("persistence", world=reader.world)
    told = []
    positions = np.arange(230, 731, 3)
    forecasts, truths, starts = forecast_pairs(persistence, reader, positions, 48, told.append)
    errors = forecasts - truths
    kept = [p for p in positions if p + 2 < 731 and p // 240 == (p + 2) // 240]
    assert len(errors) == len(kept) == sum(told) < len(positions)
    assert torch.equal(starts, reader.state(np.array(kept)))
    states = reader.physical(np.arange(731))
    change = states[kept] - states[np.array(kept) + 2]
    assert torch.allclose(errors * reader.world.std, change, atol=0.05)  # of 98000 Pa


def test_variance_of_the_errors_of_an_ar1_process(reader):
    """Persistence 2 (1 - r^n), the best there is 1 - r^2n; in units of the true spread."""

    class Best(Forecaster):
        def step(self, state, time, hours, forcing=None, generator=None):
            return MEMORY ** (hours / 24) * state

    persistence = FORECASTERS.build("persistence", world=reader.world)
    scale = reader.world.std / torch.from_numpy(SPREAD).float()[:, None, None]
    for days in (1, 3):
        r = MEMORY**days
        for forecaster, known in ((persistence, 2 * (1 - r)), (Best(reader.world), 1 - r**2)):
            forecasts, truths, _ = forecast_pairs(
                forecaster, reader, np.arange(0, 731, 2), 24 * days
            )
            errors = forecasts - truths
            assert (errors * scale).square().mean().item() == pytest.approx(known, rel=0.05)
            spectrum = error_covariance(errors * scale).eigenvalues
            share = torch.tensor([1, 2, 2, 2, 1]) / 8  # of the variance, by zonal wavenumber
            assert (spectrum * share).sum(-1).mean().item() == pytest.approx(known, rel=0.05)


def test_smoothing_averages_three_latitudes_and_inflation_multiplies():
    errors = torch.randn(50, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    errors[:, :, 2] *= 3
    raw = SpectralCovariance.estimate(errors).eigenvalues
    smooth = error_covariance(errors, 2.0).eigenvalues
    assert torch.allclose(smooth[:, 1:-1], 2 * (raw[:, :-2] + raw[:, 1:-1] + raw[:, 2:]) / 3)
    assert torch.allclose(smooth[:, 0], 2 * (2 * raw[:, 0] + raw[:, 1]) / 3)
    assert torch.allclose(smooth[:, -1], 2 * (2 * raw[:, -1] + raw[:, -2]) / 3)


def test_the_estimate_converges_to_a_known_covariance():
    known = SpectralCovariance(torch.tensor([2.0, 1.0, 0.5, 0.2, 0.1]).expand(1, 4, 5).clone())
    noise = torch.randn(4000, 1, 4, 8, generator=torch.Generator().manual_seed(1))
    found = error_covariance(known.sample(noise)).eigenvalues
    assert (found / known.eigenvalues - 1).abs().max() < 5 * (2 / 8000) ** 0.5
