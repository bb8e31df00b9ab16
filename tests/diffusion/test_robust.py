"""Student-t errors against quadrature: agreement where all is well, outliers set aside."""

import numpy as np
import pytest
import torch
from worlds import expect

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion import GaussianDenoiser
from gapzoo.diffusion.covariance import SpectralCovariance
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.guidance.robust import StudentConstraint
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.schedules.edm import EDMSchedule

SCALE, DEGREES = 0.3, 4.0
SHAPE = (1, 1, 4)


def whole(x):
    return x.flatten(1)


def draw(constraint, members=2000):
    prior = Prior(GaussianDenoiser(torch.zeros(SHAPE), 1.0, EDMSchedule(sigma_max=80.0)))
    posterior = prior.given(observations=constraint, iterations=4)
    sampler = SAMPLERS.build("dpmpp_2m", denoiser=posterior, steps=32)
    return sampler(shape=(members, *SHAPE), generator=MemberGenerator(0, members)).flatten(1)


def exact(y: float) -> tuple[float, float]:
    """Mean and standard deviation of N(0, 1) times Student's likelihood."""
    x = np.linspace(-8, 12, 40001)
    density = np.exp(-(x**2) / 2) * (1 + ((y - x) / SCALE) ** 2 / DEGREES) ** (-(DEGREES + 1) / 2)
    density /= density.sum()
    mean = (x * density).sum()
    return mean, np.sqrt(((x - mean) ** 2 * density).sum())


def test_plain_observations_and_a_gross_error():
    """0.5 and -1 are plausible, 7 is 23 scales from the prior's mean: a Gaussian would take it."""
    y = torch.tensor([[0.5, -1.0, 7.0, 0.0]])
    found = draw(StudentConstraint(whole, y, SCALE**2, DEGREES))
    for n, value in enumerate((0.5, -1.0, 7.0, 0.0)):
        mean, std = exact(value)
        assert found[:, n].mean().item() == pytest.approx(mean, abs=0.12), value
        assert found[:, n].std().item() == pytest.approx(std, rel=0.25), value
    plain = draw(GaussianConstraint(whole, y, SCALE**2), members=200)
    assert plain[:, 2].mean() > 6


def test_many_degrees_are_gaussian():
    y = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
    heavy = draw(StudentConstraint(whole, y, SCALE**2, 1e7), members=50)
    torch.testing.assert_close(
        heavy, draw(GaussianConstraint(whole, y, SCALE**2), members=50), rtol=0, atol=1e-4
    )


def test_a_member_alone_equals_itself_and_a_second_draw_equals_the_first():
    y = torch.tensor([[0.5, -1.0, 7.0, 0.0]])
    constraint = StudentConstraint(whole, y, SCALE**2, DEGREES)
    prior = Prior(GaussianDenoiser(torch.zeros(SHAPE), 1.0, EDMSchedule(sigma_max=80.0)))
    sampler = SAMPLERS.build("dpmpp_2m", denoiser=prior.given(observations=constraint), steps=8)
    first, second = (sampler(shape=(3, *SHAPE), generator=MemberGenerator(1, 3)) for _ in range(2))
    assert torch.equal(first, second)
    alone = sampler(shape=(1, *SHAPE), generator=MemberGenerator(1, [2]))
    torch.testing.assert_close(alone[0], first[2], rtol=0, atol=1e-5)


def test_bad_input_is_named():
    y = torch.zeros(1, 4)
    with expect(GapzooError, "0 degrees of freedom"):
        StudentConstraint(whole, y, 1.0, 0)
    with expect(GapzooError, "must be independent"):
        StudentConstraint(whole, torch.zeros(1, *SHAPE), SpectralCovariance(torch.ones(1, 1, 3)))
