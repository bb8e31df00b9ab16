import math

import azula.sample
import pytest
import torch

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion import SAMPLERS, SCHEDULES, GaussianDenoiser

ORDER_2 = ["dpmpp", "dpmpp_2m", "heun"]
DETERMINISTIC = ["ddim", "euler", *ORDER_2]
STOCHASTIC = ["ancestral", "dpmpp_stochastic", "stochastic"]
STD = 0.5


def scalar_prior(schedule="edm", **arguments):
    return GaussianDenoiser(torch.zeros(1, 1, 1), STD**2, SCHEDULES.build(schedule, **arguments))


def relative_error(name, steps, schedule="edm"):
    """Against the exact probability flow: x_0 = x_1 sqrt(v / (v + sigma_1^2)), alpha aside."""
    denoiser = scalar_prior(schedule)
    generator = MemberGenerator(0, 2)
    alpha, sigma = denoiser.schedule(torch.tensor(1.0))
    noise = MemberGenerator(0, 2).randn((2, 1, 2, 2))
    exact = sigma * noise * STD / (alpha**2 * STD**2 + sigma**2).sqrt()
    sampler = SAMPLERS.build(name, denoiser=denoiser, steps=steps)
    got = sampler(shape=(2, 1, 2, 2), generator=generator)
    return (got / exact - 1).abs().max().item()


def test_the_registry_finds_every_sampler_by_itself():
    assert SAMPLERS.names() == sorted(
        ["decoupled", "exponential", "single", *DETERMINISTIC, *STOCHASTIC]
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("euler", (0.154, 0.078, 0.039, 0.020)), ("heun", (0.055, 0.012, 0.0029, 0.00070))],
)
def test_errors_on_the_edm_grid_are_the_known_ones(name, expected):
    for steps, error in zip((18, 36, 72, 144), expected, strict=True):
        assert relative_error(name, steps) == pytest.approx(error, rel=0.025)


@pytest.mark.parametrize("schedule", SCHEDULES.names())
@pytest.mark.parametrize("name", ["dpmpp", "heun"])
def test_halving_the_step_quarters_the_error(name, schedule):
    ratio = relative_error(name, 60, schedule) / relative_error(name, 120, schedule)
    assert ratio == pytest.approx(4, rel=0.2)


def test_2m_is_of_order_2():
    ratio = relative_error("dpmpp_2m", 100) / relative_error("dpmpp_2m", 200)
    assert ratio == pytest.approx(4, rel=0.25)


def test_ddim_without_noise_is_euler():
    assert relative_error("ddim", 20) == pytest.approx(relative_error("euler", 20), rel=1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "flow", "edm"])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("euler", azula.sample.EulerSampler),
        ("heun", azula.sample.HeunSampler),
        ("ddim", azula.sample.DDIMSampler),
        ("ancestral", azula.sample.DDPMSampler),
    ],
)
def test_steps_agree_with_azula(name, theirs, schedule, linear, one_stream):
    denoiser = linear.prior(SCHEDULES.build(schedule))
    x_t = torch.randn(4, 8, 1, 1, generator=torch.Generator().manual_seed(0))
    for t, s in ((0.9, 0.7), (0.4, 0.3)):
        t, s = torch.tensor(t), torch.tensor(s)
        ours = SAMPLERS.build(name, denoiser=denoiser).step(x_t, t, s, one_stream(5, 4))
        torch.manual_seed(5)
        expected = theirs(denoiser, silent=True).step(x_t, t, s)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES.names())
def test_ancestral_variance_follows_its_recursion(schedule, one_stream):
    denoiser, steps, count = scalar_prior(schedule), 24, 40000
    times = denoiser.schedule.times(steps)
    alpha, sigma = denoiser.schedule(times)
    variance = sigma[0] ** 2
    for i in range(steps):
        r2 = (sigma[i + 1] * alpha[i] / (alpha[i + 1] * sigma[i])) ** 2
        tau2 = sigma[i + 1] ** 2 * (1 - r2)
        gain = alpha[i] * STD**2 / (alpha[i] ** 2 * STD**2 + sigma[i] ** 2)
        z = (sigma[i + 1] ** 2 - tau2).sqrt() / sigma[i]
        variance = (alpha[i + 1] * gain + z * (1 - alpha[i] * gain)) ** 2 * variance + tau2
    sampler = SAMPLERS.build("ancestral", denoiser=denoiser, steps=steps)
    x = sampler(shape=(count, 1, 1, 1), generator=one_stream(0, count))
    assert x.var().item() == pytest.approx(variance.item(), rel=4 * math.sqrt(2 / count))


@pytest.mark.parametrize("name", ["stochastic", "dpmpp_stochastic"])
def test_churn_leaves_the_variance_right(name, one_stream):
    count = 40000
    sampler = SAMPLERS.build(name, denoiser=scalar_prior(), steps=96, churn=30.0)
    x = sampler(shape=(count, 1, 1, 1), generator=one_stream(0, count))
    assert x.var().item() == pytest.approx(STD**2, rel=4 * math.sqrt(2 / count) + 0.004)


def test_churn_changes_a_member_and_without_churn_it_is_heun():
    denoiser = scalar_prior()

    def draw(name, **options):
        sampler = SAMPLERS.build(name, denoiser=denoiser, steps=12, **options)
        return sampler(shape=(1, 1, 2, 2), generator=MemberGenerator(0, 1))

    assert torch.equal(draw("stochastic", churn=0.0), draw("heun"))
    assert (draw("stochastic") - draw("heun")).abs().max() > 0.01


@pytest.mark.parametrize("name", DETERMINISTIC + STOCHASTIC)
def test_a_member_is_the_same_alone_and_among_many(name, linear):
    sampler = SAMPLERS.build(name, denoiser=linear.prior(SCHEDULES.build("edm")), steps=9)
    many = sampler(shape=(8, 1, 1), generator=MemberGenerator(3, 5))
    alone = sampler(shape=(1, 8, 1, 1), generator=MemberGenerator(3, [2]))
    torch.testing.assert_close(many[2:3], alone, rtol=1e-4, atol=1e-5)
    assert (many[1] - many[2]).abs().max() > 0.1


@pytest.mark.parametrize("schedule", SCHEDULES.names())
def test_renoising_to_a_level_follows_the_exact_flow_from_there(schedule):
    denoiser, level = scalar_prior(schedule), 0.6
    start = denoiser.schedule.t_of_sigma(torch.tensor(level)).item()
    state = torch.full((1, 1, 2, 2), 1.5)
    sampler = SAMPLERS.build("heun", denoiser=denoiser, steps=200)
    got = sampler(state, generator=MemberGenerator(0, 3), start=start)
    noise = MemberGenerator(0, 3).randn((3, 1, 2, 2))
    exact = (state + level * noise) * STD / math.sqrt(STD**2 + level**2)
    torch.testing.assert_close(got, exact, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", DETERMINISTIC + STOCHASTIC)
@pytest.mark.parametrize("schedule", SCHEDULES.names())
def test_one_step_is_the_denoised_mean(name, schedule):
    denoiser = scalar_prior(schedule)
    got = SAMPLERS.build(name, denoiser=denoiser, steps=1)(
        shape=(1, 1, 2, 2), generator=MemberGenerator(0, 1)
    )
    sigma = denoiser.schedule(torch.tensor(1.0))[1]
    x_t = sigma * MemberGenerator(0, 1).randn((1, 1, 2, 2))
    torch.testing.assert_close(got, denoiser(x_t, torch.tensor(1.0)).mean, rtol=1e-4, atol=1e-6)


def test_progress_is_told_after_every_step():
    seen = []
    sampler = SAMPLERS.build(
        "euler", denoiser=scalar_prior(), steps=3, progress=lambda *done: seen.append(done)
    )
    sampler(shape=(1, 1, 1), generator=MemberGenerator(0, 1))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("euler", {"steps": 0}, "steps is 0"),
        ("ddim", {"eta": 1.5}, "eta is 1.5"),
        ("stochastic", {"churn": -1.0}, "out of range"),
        ("hein", {}, "did you mean 'heun'"),
        ("heun", {"eta": 1.0}, "unexpected keyword argument 'eta'"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, message):
    with pytest.raises(GapzooError, match=message):
        SAMPLERS.build(name, denoiser=scalar_prior(), **arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({}, "nothing to start from"),
        ({"shape": (3, 1, 1, 1)}, "for 2 members"),
        ({"x_init": torch.zeros(3, 1, 1, 1)}, "for 2 members"),
        ({"shape": (1, 1, 1), "start": 1.5}, "start time is 1.5"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(call, message):
    sampler = SAMPLERS.build("euler", denoiser=scalar_prior())
    with pytest.raises(GapzooError, match=message):
        sampler(generator=MemberGenerator(0, 2), **call)
