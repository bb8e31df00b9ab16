"""The zonal covariance against dense matrices, and the denoiser built around its Wiener filter."""

import pytest
import torch
from torch import nn

from gapzoo.core import GapzooError
from gapzoo.diffusion import (
    SCHEDULES,
    DenoisingLoss,
    GaussianDenoiser,
    PreconditionedDenoiser,
    Prior,
    SpectralCovariance,
)
from gapzoo.diffusion.zonal import ZonalCovariance

SHAPE = (2, 4, 8)
LEVELS = [0.03, 0.5, 4.0, 60.0]


def root(shape=SHAPE, seed=0):
    """(N,N) T of a homogeneous field T z, z white: circulant along longitude, T z in real space."""
    channels, height, width = shape
    g, rows = torch.Generator().manual_seed(seed), channels * height
    kernel = torch.randn(rows, rows, width, generator=g, dtype=torch.float64) / rows**0.5
    kernel *= torch.tensor([1.0, 0.6, 0.3] + [0.0] * (width - 3))
    kernel[:, :, 0] += torch.eye(rows)
    lag = (torch.arange(width)[:, None] - torch.arange(width)) % width
    return kernel[:, :, lag].permute(0, 2, 1, 3).reshape(rows * width, rows * width)


def sample(count, shape=SHAPE, seed=1):
    """(count,C,H,W) fields of covariance T T^T."""
    size = shape[0] * shape[1] * shape[2]
    noise = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return (noise @ root(shape).float().T).reshape(count, *shape)


def dense(covariance, gain=lambda b: b, *scalars):
    """(N,N) the operator's matrix, column by column, in float64."""
    size = covariance.shape[0] * covariance.shape[1] * covariance.shape[2]
    unit = torch.eye(size, dtype=torch.float64).reshape(size, *covariance.shape)
    return covariance.filter(unit, gain, *scalars).reshape(size, size).T


def averaged(states):
    """(N,N) second moments of a sample, averaged over all turns of the globe."""
    turned = torch.cat([states.roll(k, -1) for k in range(states.shape[-1])])
    flat = turned.flatten(1).double()
    return flat.T @ flat / len(flat)


@pytest.fixture(scope="module")
def full():
    return ZonalCovariance.fit([sample(400)], threshold=0)


@pytest.fixture(scope="module")
def cut():
    """About half of the directions left to the tail."""
    return ZonalCovariance.fit([sample(400)], threshold=1.0)


def test_the_fit_recovers_the_covariance_of_a_homogeneous_field():
    known = root() @ root().T
    count = 20000
    found = dense(ZonalCovariance.fit(sample(count).split(3000), threshold=0))
    variance = known.diagonal()
    error = ((variance[:, None] * variance + known**2) / count).sqrt()  # without the averaging
    assert ((found - known).abs() < 1.5 * error).all()  # four times error / sqrt(8)
    assert (found - known).norm() < 0.45 * error.norm()
    assert (known - torch.diag(variance)).norm() > 10 * error.norm()


@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 7)])
def test_the_fit_is_the_samples_own_moments_averaged_along_longitude(shape):
    states = sample(300, shape)
    found = dense(ZonalCovariance.fit([states], threshold=0))
    torch.testing.assert_close(found, averaged(states), rtol=1e-4, atol=1e-5)


def test_it_does_not_matter_how_the_states_come_in_batches():
    states = sample(50)
    one, many = (dense(ZonalCovariance.fit(states.split(n), threshold=0.5)) for n in (50, 7))
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["full", "cut"])
def test_apply_and_inverse_undo_each_other_and_sample_is_the_root(name, request):
    covariance, v = request.getfixturevalue(name), sample(5, seed=3)
    for there in (covariance.inverse(covariance.apply(v)), covariance.apply(covariance.inverse(v))):
        assert (there - v).norm() < 1e-3 * v.norm()  # single precision, condition 1600
    twice = covariance.sample(covariance.sample(v))
    torch.testing.assert_close(twice, covariance.apply(v), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["full", "cut"])
def test_every_filter_is_symmetric_and_the_same_at_all_longitudes(name, request):
    covariance = request.getfixturevalue(name)
    v, w = sample(4, seed=4).double(), sample(4, seed=5).double()

    def gain(b, r):
        return b / (b + r**2)

    r = torch.tensor([0.1, 0.5, 1.0, 3.0])
    one, other = covariance.filter(v, gain, r), covariance.filter(w, gain, r)
    assert not one.is_complex() and one.dtype == v.dtype
    dots = (w * one).sum((1, 2, 3)), (v * other).sum((1, 2, 3))
    torch.testing.assert_close(*dots, rtol=1e-5, atol=1e-5)
    for turn in (1, 3):
        turned = covariance.filter(v.roll(turn, -1), gain, r)
        torch.testing.assert_close(turned, one.roll(turn, -1), rtol=1e-5, atol=1e-5)


def test_a_scalar_by_member_is_each_member_alone(cut):
    v, r = sample(3, seed=4), torch.tensor([0.1, 1.0, 5.0])

    def gain(b, s):
        return b / (b + s**2)

    together = cut.filter(v, gain, r)
    for k in range(3):
        alone = cut.filter(v[k : k + 1], gain, r[k])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-5, atol=1e-5)


def test_a_gain_alike_for_all_modes_is_a_factor(cut):
    v = sample(3, seed=4)
    for constant in (torch.tensor(2.0), torch.tensor([2.0])):
        torch.testing.assert_close(cut.filter(v, lambda _, c=constant: c), 2 * v)
    by_member = cut.filter(v, lambda _, r: 2 * r, torch.arange(3.0))
    torch.testing.assert_close(by_member, 2 * torch.arange(3.0).reshape(3, 1, 1, 1) * v)


def test_each_tail_gets_exactly_its_own_gain_and_the_mean_variance_of_what_was_dropped(full, cut):
    v = sample(4, seed=6).double()
    outside = v - cut.synthesise(cut.analyse(v), v)
    assert outside.norm() > 0.1 * v.norm()
    tails = cut.eigenvalues[-5:].double()
    assert tails.max() > 1.5 * tails.min()
    waves = torch.fft.rfft(outside) / (1 + tails)
    got = cut.filter(outside, lambda b: 1 / (1 + b))
    torch.testing.assert_close(got, torch.fft.irfft(waves, n=SHAPE[2]), rtol=1e-5, atol=1e-5)
    for every, inside, tail in zip(
        full.eigenvalues[:-5].split(full.ranks),
        cut.eigenvalues[:-5].split(cut.ranks),
        cut.eigenvalues[-5:],
        strict=True,
    ):
        torch.testing.assert_close(inside.sort().values, every[every > 1.0].sort().values)
        torch.testing.assert_close(tail, every[every <= 1.0].mean())


@pytest.mark.parametrize("rest", [0.5, 0.1, 0.02])
def test_no_tail_holds_more_than_the_rest_and_no_vector_is_kept_for_nothing(full, rest):
    found = ZonalCovariance.fit([sample(400)], threshold=1e9, rest=rest)
    for every, rank in zip(full.eigenvalues[:-5].split(full.ranks), found.ranks, strict=True):
        left = every.sort().values.cumsum(0) / every.sum()  # of the 1, 2, ... smallest
        dropped = len(every) - rank
        assert dropped == 0 or left[dropped - 1] <= rest
        assert left[dropped] > rest


def test_sampling_starts_from_the_gaussian_marginal(cut):
    """x_t = alpha x + sigma z has the covariance alpha^2 L + sigma^2."""
    schedule = SCHEDULES.build("cosine")
    prior = Prior(PreconditionedDenoiser(Fixed(), schedule, climatology=cut)).given()
    t = torch.tensor(0.7)
    alpha, sigma = schedule(t)
    count = 20000
    noise = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(2))
    found = cut.of(prior.begin(noise, t)).eigenvalues
    expected = alpha**2 * cut.eigenvalues + sigma**2
    assert (found / expected - 1).abs().max() < 5 * (2 / count) ** 0.5
    bare = PreconditionedDenoiser(Fixed(), schedule)
    assert torch.equal(bare.begin(noise[:2], t), sigma * noise[:2])


def test_one_tail_for_all_wavenumbers_is_white(cut):
    """What checkpoints before the tails by wavenumber hold."""
    few = cut.eigenvalues[: sum(cut.ranks)]
    one = ZonalCovariance(cut.vectors, torch.cat([few, torch.tensor([0.3])]), SHAPE)
    same = ZonalCovariance(cut.vectors, torch.cat([few, torch.full((5,), 0.3)]), SHAPE)
    torch.testing.assert_close(dense(one), dense(same))
    ratios = torch.tensor([0.1, 2.0])
    for gain in (lambda b, r: b / (b + r**2), lambda b, r: r * b):
        found, expected = (c.point_variance(gain, ratios) for c in (one, same))
        torch.testing.assert_close(found, expected)
    assert not one.same_basis(same) and one.of(sample(9)).same_basis(one)


def test_with_a_tail_the_leading_directions_keep_their_variance(cut):
    matrix, moments = dense(cut), averaged(sample(400))
    level, vectors = torch.linalg.eigh(moments)
    top = vectors[:, level > 1.0]
    torch.testing.assert_close(top.T @ matrix @ top, top.T @ moments @ top, rtol=1e-4, atol=1e-4)
    twice = [1, 2, 2, 2, 1]  # a wavenumber's cosine and sine
    left = [t * (len(e) - len(e.T)) for t, e in zip(twice, cut.vectors, strict=True)]
    tails = cut.eigenvalues[-5:].double().repeat_interleave(torch.tensor(left))
    known = torch.linalg.eigvalsh(matrix)[: len(tails)]
    torch.testing.assert_close(known, tails.sort().values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 7)])
@pytest.mark.parametrize("threshold", [0, 1.0])
def test_point_variance_is_the_diagonal_averaged_by_channel(shape, threshold):
    covariance = ZonalCovariance.fit([sample(300, shape)], threshold)

    def gain(b, r):
        return r**2 * b / (b + r**2)

    ratios = torch.tensor([0.1, 1.0, 10.0])
    found = covariance.point_variance(gain, ratios)
    for r, row in zip(ratios, found, strict=True):
        diagonal = dense(covariance, gain, r).diagonal().reshape(shape).mean((1, 2))
        torch.testing.assert_close(row.double(), diagonal, rtol=1e-4, atol=1e-6)
    plain = dense(covariance).diagonal().reshape(shape).mean((1, 2))
    torch.testing.assert_close(covariance.point_variance(lambda b: b)[0], plain.float())


def test_errors_in_the_basis_are_what_a_direct_computation_gives(cut):
    errors = sample(60, seed=7) + 0.3
    waves = torch.fft.rfft(errors.double(), dim=-1).flatten(1, 2) / SHAPE[2] ** 0.5
    variance, tails = [], []
    for m, e in enumerate(cut.vectors):
        e, moments = e.to(waves), waves[:, :, m].T @ waves[:, :, m].conj() / len(errors)
        inside = (e.conj().T @ moments @ e).diagonal().real
        variance.append(inside)
        tails.append((moments.diagonal().real.sum() - inside.sum()) / (len(e) - len(e.T)))
    found = cut.of(errors)
    expected = torch.cat([*variance, torch.stack(tails)]).float()
    torch.testing.assert_close(found.eigenvalues, expected, rtol=1e-4, atol=1e-5)
    assert found.same_basis(cut) and cut.same_basis(found)


def test_the_states_own_errors_give_the_fit_back(cut):
    found = cut.of(sample(400))
    torch.testing.assert_close(found.eigenvalues, cut.eigenvalues, rtol=1e-4, atol=1e-5)


def test_cross_validated_variances_are_right_on_average_for_states_not_seen():
    """From few samples in-sample variances are too small: here by an eighth."""
    other = sample(4000, seed=21)

    def bias(found):
        truth = found.of(other).eigenvalues[:-5]
        return (found.eigenvalues[:-5].clamp(min=1e-6) / truth).log().mean()

    samples = [sample(60, seed=20 + k) for k in range(2, 10)]
    plain = [bias(ZonalCovariance.fit([few], threshold=0)) for few in samples]
    parts = [[[b] for b in few.split(6)] for few in samples]
    crossed = [bias(ZonalCovariance.cross_validated(p, threshold=0)) for p in parts]
    assert torch.stack(plain).mean() < -0.1
    assert torch.stack(crossed).mean().abs() < 0.05
    with pytest.raises(GapzooError, match="at least 2 parts"):
        ZonalCovariance.cross_validated([samples[:1]])


def test_it_comes_back_from_its_tensors_to_half_precision(cut):
    tensors = cut.to_tensors()
    vectors = [tensors[f"covariance.{m}"] for m in range(SHAPE[2] // 2 + 1)]
    assert all(v.dtype == torch.float16 for v in vectors)
    again, twin = (ZonalCovariance.from_tensors(tensors, SHAPE) for _ in range(2))
    assert torch.equal(again.eigenvalues, cut.eigenvalues) and again.ranks == cut.ranks
    matrix = dense(cut)
    assert (dense(again) - matrix).norm() < 1e-3 * matrix.norm()
    assert again.same_basis(twin) and not again.same_basis(cut)
    for before, after in zip(again.to_tensors().values(), tensors.values(), strict=True):
        assert torch.equal(before, after)


def test_other_bases_are_not_its_own(full, cut):
    assert not full.same_basis(cut)
    assert not cut.same_basis(SpectralCovariance(torch.ones(2, 4, 5)))


def test_wrong_sizes_are_refused(cut):
    with pytest.raises(GapzooError, match="5 zonal wavenumbers for 10 longitudes"):
        ZonalCovariance(cut.vectors, cut.eigenvalues, (2, 4, 10))
    with pytest.raises(GapzooError, match="tails, 1 or 5"):
        ZonalCovariance(cut.vectors, cut.eigenvalues[:-1], SHAPE)
    with pytest.raises(GapzooError, match="negative"):
        ZonalCovariance(cut.vectors, -cut.eigenvalues, SHAPE)
    with pytest.raises(GapzooError, match="no states"):
        ZonalCovariance.fit([])


class Fixed(nn.Module):
    """Returns a multiple of its input and keeps what it was given."""

    def __init__(self, factor=0.0):
        super().__init__()
        self.factor = factor

    def forward(self, x, c_noise, cond=None):
        self.x, self.c_noise, self.cond = x, c_noise, cond
        return self.factor * x


def noisy(schedule):
    """(x_t (4,C,H,W), t (4,), x): fields at four noise levels."""
    x, t = sample(4, seed=8), schedule.t_of_sigma(torch.tensor(LEVELS))
    alpha, sigma = (s.reshape(4, 1, 1, 1) for s in schedule(t))
    return alpha * x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(9)), t


@pytest.mark.parametrize("covariance", ["full", "cut"])
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_a_network_that_returns_zero_is_the_exact_gaussian_prior(name, covariance, request):
    schedule, climatology = SCHEDULES.build(name), request.getfixturevalue(covariance)
    exact = GaussianDenoiser(torch.zeros(SHAPE), dense(climatology), schedule)
    ours = PreconditionedDenoiser(Fixed(), schedule, climatology=climatology)
    x_t, t = noisy(schedule)
    expected = exact(x_t.double(), t.double()).mean.float()
    torch.testing.assert_close(ours(x_t, t).mean, expected, rtol=1e-3, atol=2e-4)
    for k in range(4):
        alone = ours(x_t[k : k + 1], t[k]).mean
        torch.testing.assert_close(alone, expected[k : k + 1], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_its_jacobian_is_the_gaussian_posterior_covariance(name, cut):
    schedule = SCHEDULES.build(name)
    ours = PreconditionedDenoiser(Fixed(), schedule, climatology=cut)
    x_t, t = noisy(schedule)
    x_t, v = x_t.requires_grad_(), sample(4, seed=10)
    alpha, sigma = ours.scales(x_t, t)
    pulled = torch.autograd.grad(ours(x_t, t).mean, x_t, v)[0] * sigma**2 / alpha
    exact = GaussianDenoiser(torch.zeros(SHAPE), dense(cut), schedule)(x_t.detach(), t)
    torch.testing.assert_close(pulled, exact.covariance(v), rtol=1e-3, atol=1e-3)


def test_what_the_network_is_given(cut):
    schedule, backbone = SCHEDULES.build("edm"), Fixed(1.0)
    denoiser = PreconditionedDenoiser(backbone, schedule, climatology=cut, cond_channels=3)
    x_t, t = noisy(schedule)
    cond = torch.randn(1, 3, *SHAPE[1:], generator=torch.Generator().manual_seed(11))
    mean = denoiser(x_t, t, cond=cond).mean
    r = torch.tensor(LEVELS).reshape(4, 1, 1, 1)
    linear = cut.filter(x_t, lambda b, s: b / (b + s**2), torch.tensor(LEVELS))
    torch.testing.assert_close(backbone.x, (x_t - linear) / r, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(backbone.c_noise, torch.tensor(LEVELS).log() / 4)
    assert torch.equal(backbone.cond[:, :3], cond.repeat(4, 1, 1, 1))
    torch.testing.assert_close(backbone.cond[:, 3:], linear, rtol=1e-4, atol=1e-4)
    scale = [dense(cut, lambda b, s: s**2 * b / (b + s**2), s) for s in torch.tensor(LEVELS)]
    c_out = torch.stack([m.diagonal().reshape(SHAPE).mean((1, 2)).sqrt() for m in scale]).float()
    expected = linear + c_out[:, :, None, None] * backbone.x
    torch.testing.assert_close(mean, expected, rtol=1e-3, atol=1e-3)


def test_a_shaped_output_has_the_posterior_standard_deviation_of_every_mode(cut):
    """M M = r^2 L (L + r^2)^-1, so that white output is a draw of the Gaussian posterior error."""
    schedule, backbone = SCHEDULES.build("edm"), Fixed(1.0)
    denoiser = PreconditionedDenoiser(backbone, schedule, climatology=cut, shaped=True)
    x_t, t = noisy(schedule)
    mean = denoiser(x_t, t).mean
    linear = cut.filter(x_t, lambda b, s: b / (b + s**2), torch.tensor(LEVELS))
    for k, r in enumerate(torch.tensor(LEVELS)):
        level, vectors = torch.linalg.eigh(dense(cut, lambda b, s: s**2 * b / (b + s**2), r))
        root = vectors @ level.clamp(min=0).sqrt().diag() @ vectors.T
        change = (root @ backbone.x[k].double().flatten()).reshape(SHAPE).float()
        torch.testing.assert_close(mean[k] - linear[k], change, rtol=1e-3, atol=1e-3)


def test_no_condition_is_a_condition_of_zeros(cut):
    class Sum(nn.Module):
        def forward(self, x, c_noise, cond):
            return x + cond.sum(1, keepdim=True) * torch.linspace(1, 2, cond.shape[1]).sum()

    schedule = SCHEDULES.build("cosine")
    denoiser = PreconditionedDenoiser(Sum(), schedule, climatology=cut, cond_channels=3)
    x_t, t = noisy(schedule)
    zeros = denoiser(x_t, t, cond=torch.zeros(1, 3, *SHAPE[1:])).mean
    assert torch.equal(denoiser(x_t, t, cond=None).mean, zeros)
    assert torch.equal(denoiser(x_t, t).mean, zeros)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_with_a_climatology_too_time_0_gives_the_state_back(name, cut):
    x = sample(2, seed=12)
    denoiser = PreconditionedDenoiser(Fixed(2.0), SCHEDULES.build(name), climatology=cut)
    torch.testing.assert_close(denoiser(x, torch.tensor(0.0)).mean, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", [None, torch.tensor([3.0, 1.0])])
@pytest.mark.parametrize("ratio", LEVELS)
def test_the_loss_of_zero_is_1_at_every_noise_level(ratio, weights, cut):
    g, count = torch.Generator().manual_seed(13), 4000
    x = cut.sample(torch.randn(count, *SHAPE, generator=g))
    noise = torch.randn(count, *SHAPE, generator=g)
    denoiser = PreconditionedDenoiser(Fixed(), SCHEDULES.build("edm"), climatology=cut)
    loss = DenoisingLoss(channel_weights=weights)
    value = loss.at(denoiser, x, noise, torch.full((count,), ratio))
    assert abs(value.loss.item() - 1) < 4 * value.per_sample.std().item() / count**0.5 < 0.04
