"""Spectra: Parseval, pure waves, scipy; coherence of related and unrelated fields."""

import numpy as np
import pytest
import scipy.signal
import torch

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.spectra import zonal_power


@pytest.mark.parametrize("width", [7, 8, 64])
def test_parseval(width):
    field = torch.randn(3, 5, width, generator=torch.Generator().manual_seed(width)).double()
    expected = field.square().mean(-1)
    torch.testing.assert_close(zonal_power(field).sum(-1), expected, rtol=1e-12, atol=0)


def test_agrees_with_scipy():
    field = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).double()
    _, expected = scipy.signal.periodogram(field.numpy(), detrend=False, scaling="spectrum")
    np.testing.assert_allclose(zonal_power(field), expected, rtol=1e-12)


def test_a_wave_has_its_power_at_its_wavenumber():
    x = 2 * torch.pi * torch.arange(32).double() / 32
    power = zonal_power(5 + 3 * torch.cos(4 * x + 0.7))
    expected = torch.zeros(17, dtype=torch.float64)
    expected[0], expected[4] = 25, 4.5
    torch.testing.assert_close(power, expected, rtol=0, atol=1e-12)


def test_spectrum_is_the_mean_over_members_and_area(case):
    area = torch.as_tensor(case.grid.area_weights)
    expected = (zonal_power(case.forecast) * area[:, None]).sum(-2) / area.sum()
    torch.testing.assert_close(case.score("spectrum"), expected.mean((0, 1)), rtol=1e-9, atol=0)


def test_twice_the_field_has_four_times_the_power(case):
    case.forecast = 2 * case.truth[:, None]
    four = torch.full((2, 9, 5), 4.0, dtype=torch.float64)
    torch.testing.assert_close(case.score("spectrum_ratio"), four, rtol=1e-9, atol=0)


def test_coherence_agrees_with_scipy():
    generator = torch.Generator().manual_seed(9)
    y = torch.randn(1, 40, 16, generator=generator)
    x = y + torch.randn(1, 40, 16, generator=generator)
    metric = EVALUATORS.build("coherence", area_weights=np.ones(40))
    metric.update(x[:, None], y)
    _, expected = scipy.signal.coherence(
        x.flatten().double(), y.flatten().double(),
        window="boxcar", nperseg=16, noverlap=0, detrend=False,
    )  # fmt: skip
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-9)


def test_coherence_ignores_a_common_shift(case):
    case.forecast = 3 * case.truth.roll(2, -1)[:, None]
    one = torch.ones(2, 9, 5, dtype=torch.float64)
    torch.testing.assert_close(case.score("coherence"), one, rtol=1e-9, atol=0)


def test_a_region_without_whole_rows_is_refused(case):
    region = np.zeros((6, 8))
    region[:, :3] = 1
    with pytest.raises(GapzooError, match="no whole latitude row"):
        case.score("spectrum", region=region)
