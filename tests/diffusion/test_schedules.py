import pytest
import torch

from gapzoo.core import GapzooError
from gapzoo.diffusion import SCHEDULES

NAMES = SCHEDULES.names()


def test_the_registry_finds_every_schedule_by_itself():
    assert NAMES == ["cosine", "edm", "flow"]


@pytest.mark.parametrize("name", NAMES)
def test_time_0_is_clean_and_time_1_is_sigma_max(name):
    schedule = SCHEDULES.build(name, sigma_max=50.0)
    alpha, sigma = schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (alpha[0], sigma[0]) == (1.0, 0.0)
    assert (sigma / alpha)[1].item() == pytest.approx(50.0, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_t_of_sigma_inverts_the_ratio_from_below_sigma_min_to_above_sigma_max(name):
    schedule = SCHEDULES.build(name)
    r = torch.logspace(-5, 2.1, 60, dtype=torch.float64)
    torch.testing.assert_close(schedule.ratio(schedule.t_of_sigma(r)), r, rtol=1e-9, atol=0)
    assert (schedule.t_of_sigma(r).diff() > 0).all()


def test_edm_times_are_the_levels_of_karras_and_then_zero():
    schedule, n = SCHEDULES.build("edm"), 18
    i = torch.arange(n, dtype=torch.float64)
    high, low = 80 ** (1 / 7), 0.002 ** (1 / 7)
    expected = torch.cat([(high + i / (n - 1) * (low - high)) ** 7, torch.zeros(1)])
    torch.testing.assert_close(schedule(schedule.times(n))[1], expected, rtol=1e-9, atol=0)


def test_edm_times_from_a_partial_start_are_even_in_the_warp():
    schedule = SCHEDULES.build("edm")
    start = schedule.t_of_sigma(torch.tensor(1.5, dtype=torch.float64)).item()
    root = schedule(schedule.times(10, start))[1][:-1] ** (1 / 7)
    assert root[0].item() == pytest.approx(1.5 ** (1 / 7))
    assert root[-1].item() == pytest.approx(0.002 ** (1 / 7))
    torch.testing.assert_close(root.diff(), root.diff()[:1].expand(9))


@pytest.mark.parametrize("name", ["cosine"])
def test_cosine_preserves_variance(name):
    alpha, sigma = SCHEDULES.build(name)(torch.linspace(0, 1, 9, dtype=torch.float64))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(9, dtype=torch.float64))


def test_flow_is_a_straight_line():
    alpha, sigma = SCHEDULES.build("flow")(torch.linspace(0, 1, 9, dtype=torch.float64))
    torch.testing.assert_close(alpha + sigma, torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(sigma.diff(), sigma.diff()[:1].expand(8))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("edm", {"sigma_min": 2.0, "sigma_max": 1.0}, "0 < lower < upper"),
        ("edm", {"sigma_min": 0.0}, "0 < lower < upper"),
        ("edm", {"rho": -1.0}, "rho is -1"),
        ("cosine", {"sigma_max": float("inf")}, "'cosine'"),
        ("cosin", {}, "did you mean 'cosine'"),
        ("edm", {"sigma": 3.0}, "unexpected keyword argument 'sigma'"),
    ],
)
def test_bad_arguments_are_refused_by_name(name, arguments, message):
    with pytest.raises(GapzooError, match=message):
        SCHEDULES.build(name, **arguments)


@pytest.mark.parametrize(("steps", "start"), [(0, 1.0), (4, 0.0), (4, 1.2)])
def test_a_grid_outside_the_schedule_is_refused(steps, start):
    for name in NAMES:
        with pytest.raises(GapzooError, match=r"(steps|start time) is"):
            SCHEDULES.build(name).times(steps, start)
