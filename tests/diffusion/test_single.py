"""One evaluation and its weights, around a reference that does not know what the network does."""

import pytest
import torch
from worlds import expect

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion import SAMPLERS, SCHEDULES, GaussianDenoiser
from gapzoo.diffusion.denoiser import Denoiser, Posterior
from gapzoo.diffusion.reference import Reference
from gapzoo.diffusion.single import BINS, LEAST, MOST, Evaluation, SingleWeights
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.tasks.single_weights import evaluation

SHAPE = C, H, W = 2, 8, 8
KNOWN = 0.4
"""Share of a mode's variance, as the reference has it, that the network knows better."""
LEVELS = torch.tensor([0.03, 0.2, 1.5]).repeat_interleave(C * H // 3 + 1)[: C * H]
SCHEDULE = SCHEDULES.build("edm", sigma_min=0.02)
ONES = torch.ones(C, H)


def covariance() -> ZonalCovariance:
    """C, as the reference has it: three levels of variance, 25 or more modes each."""
    g = torch.Generator().manual_seed(0)
    size = C * H
    bases = [torch.linalg.qr(torch.randn(size, size, generator=g))[0] for _ in range(W // 2 + 1)]
    values = torch.cat([LEVELS.repeat(W // 2 + 1), torch.ones(1)])
    return ZonalCovariance(bases, values, SHAPE)


def draw(share: float, seed: int, count: int) -> torch.Tensor:
    """States of so much of C's variance in every mode."""
    noise = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return covariance().filter(noise, lambda c: (share * c).sqrt())


class Knowing(Denoiser):
    """The exact denoiser of N(m + known, (1 - KNOWN) C) next to a reference N(m, C).

    But for so much of m that it adds to what it says.
    """

    def __init__(self, mean: torch.Tensor, known: torch.Tensor, along: float = 0.0) -> None:
        super().__init__()
        self.mean, self.known, self.schedule, self.along = mean, known, SCHEDULE, along

    def reference(self) -> Reference:
        return Reference(self.mean, covariance())

    def forward(self, x_t, t, **cond):
        alpha, sigma = self.scales(x_t, t)
        middle = self.mean + self.known
        apart = covariance().filter(
            x_t / alpha - middle, lambda c, r: c / (c + r**2 / (1 - KNOWN)), (sigma / alpha)[0]
        )
        return Posterior(middle + apart + self.along * self.mean)


def example(seed: int, along: float = 0.0) -> tuple[Denoiser, torch.Tensor]:
    """A denoiser and a truth of what it samples."""
    mean, known = draw(1.0, 3 * seed, 1), draw(KNOWN, 3 * seed + 1, 1)
    return Knowing(mean, known, along), mean + known + draw(1 - KNOWN, 3 * seed + 2, 1)


def evaluations(count: int, along: float = 0.0) -> list[Evaluation]:
    found = []
    for seed in range(count):
        denoiser, truth = example(seed, along)
        sampler = SAMPLERS.build("single", denoiser=denoiser)
        found.append(evaluation(sampler, sampler, truth, MemberGenerator(seed, 1)))
    return found


@pytest.fixture(scope="module")
def weights() -> SingleWeights:
    return SingleWeights.fit(evaluations(400), covariance())


def levels(states: torch.Tensor) -> torch.Tensor:
    """Mean squares along the modes of each level, over its variance."""
    power = covariance().analyse(states).abs().square().mean(0).unflatten(0, (-1, C * H)).mean(0)
    return torch.stack([(power / LEVELS)[v == LEVELS].mean() for v in LEVELS.unique()])


def sampled(weights: SingleWeights | None, along: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Error of the draws' mean, and their variance about it, by level."""
    errors, spreads = [], []
    for seed in range(1000, 1030):
        denoiser, _ = example(seed, along)
        sampler = SAMPLERS.build("single", denoiser=denoiser, weights=weights)
        x = sampler(shape=(64, *SHAPE), generator=MemberGenerator(seed, 64))
        middle = x.mean(0, keepdim=True)
        errors.append(middle - denoiser.mean - denoiser.known)
        spreads.append(levels((x - middle) * (64 / 63) ** 0.5))
    return levels(torch.cat(errors)), torch.stack(spreads).mean(0)


def test_weights_make_the_draws_those_of_the_posterior(weights):
    """Mean m + known and variance (1 - KNOWN) C at every level, known in closed form."""
    error, spread = sampled(weights)
    torch.testing.assert_close(spread, torch.full((3,), 1 - KNOWN), rtol=0.04, atol=0)
    assert (error - (1 - KNOWN) / 64 < 0.01).all()  # but for the mean of 64 draws


def test_without_weights_small_variances_are_taken_too_far():
    """What the integrator makes of what the network knows: up to pi / 2 of it."""
    error, _ = sampled(None)
    assert error[0] > 0.07


def test_the_share_of_the_network_is_known_in_closed_form(weights):
    """e is (1 - W') of what is known, W' the filter of the true variance; b gives all of it."""
    true = (1 - KNOWN) * LEVELS.unique()
    c, _, b = weights(LEVELS.unique())
    torch.testing.assert_close(b, true + 1.0, rtol=0.05, atol=0)
    torch.testing.assert_close(c, torch.ones(3), rtol=0.05, atol=0)


def test_what_the_network_says_along_the_mean_is_taken_back():
    """c gives up what b takes of it, and draws are those of the posterior still."""
    weights = SingleWeights.fit(evaluations(400, 0.1), covariance())
    c, _, b = weights(LEVELS.unique())
    torch.testing.assert_close(b, (1 - KNOWN) * LEVELS.unique() + 1.0, rtol=0.05, atol=0)
    torch.testing.assert_close(c, 1 - 0.1 * b, rtol=0.05, atol=0)
    error, spread = sampled(weights, 0.1)
    torch.testing.assert_close(spread, torch.full((3,), 1 - KNOWN), rtol=0.04, atol=0)
    assert (error - (1 - KNOWN) / 64 < 0.02).all()


def test_channels_and_latitudes_that_err_more_are_drawn_further_apart():
    """Truths are off by twice C's spread in one channel, by half of it in the other's north."""
    size, found = torch.tensor([[2.0] * H, [0.5] * 4 + [1.0] * 4])[..., None], []
    for seed in range(300):
        mean = draw(4.0, 2 * seed, 1)
        denoiser = GaussianDenoiser(mean[0], covariance(), SCHEDULE)
        sampler = SAMPLERS.build("single", denoiser=denoiser)
        truth = mean + size * draw(1.0, 2 * seed + 1, 1)
        found.append(evaluation(sampler, sampler, truth, MemberGenerator(seed, 1)))
    weights = SingleWeights.fit(found, covariance())
    sampler = SAMPLERS.build("single", denoiser=denoiser, weights=weights)
    x = sampler(shape=(600, *SHAPE), generator=MemberGenerator(0, 600))
    truths = mean + size * draw(1.0, 1, 4000)
    spread, true = ((v - mean).square().mean((0, 3)).sqrt() for v in (x, truths))
    far = [0, 1, 2, 5, 6, 7]  # neighbours share what is found
    torch.testing.assert_close(spread[0], true[0], rtol=0.06, atol=0)
    torch.testing.assert_close(spread[1, far], true[1, far], rtol=0.06, atol=0)


def test_draws_of_a_forecaster_leave_less_to_draw():
    """Truths are 1 C from the forecaster's middle, its draws 0.4 C: what is left is 0.6 C."""
    found = []
    for seed in range(300):
        middle, truth = draw(4.0, 4 * seed, 1), draw(1.0, 4 * seed + 1, 1)
        two = [
            SAMPLERS.build("single", denoiser=GaussianDenoiser(m[0], covariance(), SCHEDULE))
            for m in (middle + draw(0.4, 4 * seed + k, 1) for k in (2, 3))
        ]
        found.append(evaluation(*two, middle + truth, MemberGenerator(seed, 1)))
    c, a, _ = SingleWeights.fit(found, covariance())(LEVELS.unique())
    torch.testing.assert_close(c, torch.ones(3), rtol=0.03, atol=0)
    torch.testing.assert_close(a, torch.full((3,), 0.6**0.5), rtol=0.06, atol=0)


def test_without_weights_it_is_one_exponential_step():
    denoiser, _ = example(0)
    one = SAMPLERS.build("single", denoiser=denoiser)
    other = SAMPLERS.build("exponential", denoiser=denoiser, steps=1, highest=1.0)
    drawn = [s(shape=(3, *SHAPE), generator=MemberGenerator(0, 3)) for s in (one, other)]
    assert torch.equal(*drawn)


def test_a_gaussian_stays_exact_whatever_b_is():
    """Of a reference that knows all, e is nothing."""
    table = torch.stack([torch.ones(BINS), torch.ones(BINS), torch.linspace(0, 2, BINS)])
    denoiser = GaussianDenoiser(draw(1.0, 7, 1)[0], covariance(), SCHEDULE)
    sampler = SAMPLERS.build("single", denoiser=denoiser, weights=SingleWeights(table, ONES))
    found = sampler(shape=(4, *SHAPE), generator=MemberGenerator(0, 4))
    known = denoiser.mean + covariance().sample(MemberGenerator(0, 4).randn((4, *SHAPE)))
    torch.testing.assert_close(found, known, rtol=1e-3, atol=1e-3)


def test_weights_are_linear_in_the_logarithm_of_the_variance_and_constant_beyond():
    weights = SingleWeights(torch.arange(3.0 * BINS).reshape(3, BINS), ONES)
    middles = torch.logspace(*torch.tensor([LEAST, MOST]).log10().tolist(), BINS)
    c, a, b = weights(middles)
    torch.testing.assert_close(c, torch.arange(float(BINS)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a, BINS + c, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(b, BINS + a, rtol=1e-4, atol=1e-4)
    half, *_ = weights((middles[:-1] * middles[1:]).sqrt())
    torch.testing.assert_close(half, torch.arange(BINS - 1) + 0.5, rtol=1e-4, atol=1e-4)
    assert weights(torch.tensor([0.0, 1e9]))[0].tolist() == [0.0, BINS - 1]


def test_a_table_without_a_share_of_the_mean_leaves_it():
    table = torch.arange(2.0 * BINS).reshape(2, BINS)
    weights = SingleWeights.of(table, None)
    c, a, b = weights(torch.logspace(*torch.tensor([LEAST, MOST]).log10().tolist(), BINS))
    torch.testing.assert_close(torch.stack([a, b]), table, rtol=1e-4, atol=1e-4)
    assert (c == 1).all() and (weights.scale == 1).all()
    with expect(GapzooError, "scales", "gapzoo calibrate"):
        SingleWeights.of(torch.ones(3, BINS), None)


def test_bad_weights_and_settings_are_refused():
    with expect(GapzooError, f"(2, {BINS})", "gapzoo calibrate"):
        SingleWeights(torch.ones(2, BINS), ONES)
    with expect(GapzooError, "finite"):
        SingleWeights(torch.full((3, BINS), torch.nan), ONES)
    with expect(GapzooError, "scales", "gapzoo calibrate"):
        SingleWeights(torch.ones(3, BINS), torch.empty(0))
    with expect(GapzooError, "no evaluations"):
        SingleWeights.fit([], covariance())
    with expect(GapzooError, "2 steps", "exponential"):
        SAMPLERS.build("single", denoiser=example(0)[0], steps=2)
