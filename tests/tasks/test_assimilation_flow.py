"""The hybrid form: with everything linear and Gaussian it is the Kalman update of Z Z^T + P."""

from dataclasses import replace

import pytest
import torch
from linear import EXACT, MEAN_ERROR, SCHEDULE, START, H, N, Probe, W, matrix, spectral, toy
from worlds import expect, flat_world

from gapzoo.baselines.letkf import LETKF
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.observations import LinearObservationOperator
from gapzoo.diffusion import GaussianDenoiser, PreconditionedDenoiser
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.guidance.robust import StudentConstraint
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.tasks.assimilation import Assimilation, _below
from gapzoo.tasks.flow import consistent, divided, flow_update, point_deviation, unknown
from gapzoo.tasks.sampling import Sampling

STATIC, M = 0.2, 6


class Points:
    """Observes grid points; knows its places, as a filter wants."""

    def __init__(self, places: list[int]) -> None:
        self.places = torch.tensor(places)
        self.latitude = self.longitude = torch.zeros(len(places))
        self.channel = torch.zeros(len(places), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.places)

    def __call__(self, x):
        return x.flatten(1)[:, self.places]


def test_mean_and_covariance_are_the_kalman_filters():
    """Of the ensemble's own covariance and a static one, under a prior that says nothing."""
    world = toy()
    wide = Prior(GaussianDenoiser(torch.zeros(1, H, W), spectral([1e3] * 3), SCHEDULE))
    task = Assimilation(
        prior=wide,
        world=world.world,
        sampling=EXACT,
        forecaster=world.forecaster,
        form="hybrid",
        error=spectral([STATIC] * 3),
        filter=LETKF(),
    )
    members = torch.randn(M, 1, H, W, generator=torch.Generator().manual_seed(0))
    points, y, r = Points([1, 4, 6]), torch.tensor([1.0, -0.5, 0.7]), 0.3
    seen = GaussianConstraint(points, y[None], r)
    drawn = task.analyse(START, Probe(torch.zeros(M, N)), seen, forecast=members)
    x = members.flatten(1).double()
    p = torch.cov(x.T) + STATIC * torch.eye(N)
    h = torch.eye(N, dtype=torch.float64)[points.places]
    gain = p @ h.T @ (h @ p @ h.T + r * torch.eye(3)).inverse()
    mean, covariance = x.mean(0) + gain @ (y - h @ x.mean(0)), p - gain @ h @ p
    inner = (torch.eye(N) / STATIC + h.T @ h / r).inverse()  # of each draw, all alike
    found = drawn.flatten(1).double()
    assert (found.mean(0) - mean).abs().max() < 6 * MEAN_ERROR
    alone = x.mean(0) + STATIC / (STATIC + r) * h.T @ (y - h @ x.mean(0))
    assert (alone - mean).abs().max() > 0.3, "a test that could not tell would be none"
    assert (torch.cov(found.T) + inner - covariance).abs().max() < 0.01


def test_the_static_deviation_is_that_of_each_row():
    deviation = point_deviation(spectral([1.0, 2.0, 0.5]), (1, H, W))
    assert deviation.shape == (1, H, W)
    assert deviation[0, 0, 0].item() == pytest.approx(((1 + 4 + 0.5) / 4) ** 0.5, rel=0.1)


def test_a_hybrid_without_a_filter_is_refused():
    world = toy()
    with expect(GapzooError, "form 'hybrid' needs a filter"):
        Assimilation(
            prior=world.prior,
            world=world.world,
            sampling=EXACT,
            forecaster=world.forecaster,
            form="hybrid",
            error=spectral([1.0] * 3),
        )


def zonal(seed: int = 0) -> ZonalCovariance:
    """A covariance of few modes on the toy grid."""
    rng = torch.Generator().manual_seed(seed)
    waves = torch.randn(40, 1, H, W, generator=rng).cumsum(-1)
    return ZonalCovariance.fit([waves - waves.mean(0)], threshold=0.5)


def test_the_deviation_in_zonal_modes_is_exact():
    error = zonal()
    whole = error.apply(torch.eye(N).reshape(N, 1, H, W)).flatten(1)
    deviation = point_deviation(error, (1, H, W)).flatten()
    assert torch.allclose(deviation**2, whole.diagonal(), rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_share_moves_variance_into_the_modes_and_loses_none(share):
    error, members = zonal(), torch.randn(9, 1, H, W, generator=torch.Generator().manual_seed(1))
    rest, wider = divided(members, share, error)
    b = torch.cov(members.flatten(1).T)
    assert torch.allclose(torch.cov(rest.flatten(1).T), (1 - share) * b, atol=1e-5)
    assert torch.allclose(rest.mean(0), members.mean(0), atol=1e-6)
    extra = error.with_eigenvalues((wider.eigenvalues - error.eigenvalues).clamp(min=1e-9))
    moved = extra.apply(torch.eye(N).reshape(N, 1, H, W)).flatten(1).trace()
    assert moved.item() == pytest.approx(share * b.trace().item(), rel=1e-3, abs=1e-5)


class Wild(torch.nn.Module):
    """A network that pulls every state far away."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, cond):
        return 5.0 + x


@pytest.mark.parametrize("form", ["gaussian", "hybrid"])
def test_a_forecast_holds_what_the_prior_knows_and_the_network_need_not_be_asked(form):
    """``learned=0``: the Kalman update of the forecast's error alone, whatever the network says,
    in one exact step; without a forecast the network is asked as ever."""
    world, climate = toy(), spectral_modes()
    error = climate.with_eigenvalues(0.1 * climate.eigenvalues)
    cond = world.world.cond_channels
    denoiser = PreconditionedDenoiser(Wild(), SCHEDULE, climatology=climate, cond_channels=cond)
    settings = {"form": form, "error": error, "filter": LETKF() if form == "hybrid" else None}
    tasks = [
        Assimilation(
            prior=Prior(denoiser.eval()), world=world.world, forecaster=world.forecaster,
            sampling=replace(EXACT, guidance=None, guidance_options={}), learned=learned,
            **settings,
        )
        for learned in (0.0, 1.0)
    ]  # fmt: skip
    one = torch.randn(1, 1, H, W, generator=torch.Generator().manual_seed(0))
    members = one.expand(3, -1, -1, -1)
    points, y, r = Points([1, 4, 6]), torch.tensor([1.0, -0.5, 0.7]), 0.3
    seen, still = GaussianConstraint(points, y[None], r), Probe(torch.zeros(3, N))
    drawn, asked = (task.analyse(START, still, seen, forecast=members) for task in tasks)
    p, f = modes_matrix(error), one.flatten().double()
    h = torch.eye(N, dtype=torch.float64)[points.places]
    known = f + p @ h.T @ torch.linalg.solve(h @ p @ h.T + r * torch.eye(3), y - h @ f)
    assert (
        (drawn[0].flatten() - known).abs().max() < 0.05 < (asked[0].flatten() - known).abs().max()
    )
    alone, ever = (task.analyse(START, Probe(torch.zeros(3, N)), seen) for task in tasks)
    assert torch.equal(alone, ever)
    heavy = StudentConstraint(points, y[None], r, 1e6)  # nearly Gaussian: by the sampler instead
    tailed = tasks[0].analyse(START, still, heavy, forecast=members)
    assert (tailed[0].flatten() - known).abs().max() < 0.1
    with expect(GapzooError, "learned 2.0", "0 to 1"):
        replace(tasks[0], learned=2.0).analyse(START, still, seen, forecast=members)


def spectral_modes() -> ZonalCovariance:
    """A climate of one channel in zonal modes."""
    g = torch.Generator().manual_seed(3)
    bases = [torch.linalg.qr(torch.randn(H, H, generator=g))[0] for _ in range(W // 2 + 1)]
    values = 0.3 + torch.rand(H * (W // 2 + 1) + 1, generator=g)
    return ZonalCovariance(bases, values, (1, H, W))


def modes_matrix(covariance: ZonalCovariance) -> torch.Tensor:
    """(N, N)."""
    rows = covariance.apply(torch.eye(N).reshape(N, 1, H, W))
    return rows.flatten(1).double()


def test_a_share_is_the_kalman_filter_of_both_parts():
    """One observation, so that the filter's diagonal H P H^T is the whole of it."""
    world, share = toy(), 0.4
    task = Assimilation(
        prior=Prior(GaussianDenoiser(torch.zeros(1, H, W), spectral([1e3] * 3), SCHEDULE)),
        world=world.world,
        sampling=EXACT,
        forecaster=world.forecaster,
        form="hybrid",
        error=spectral([STATIC] * 3),
        filter=LETKF(),
        share=share,
    )
    members = torch.randn(M, 1, H, W, generator=torch.Generator().manual_seed(0))
    points, y, r = Points([4]), torch.tensor([1.5]), 0.3
    seen = GaussianConstraint(points, y[None], r)
    drawn = task.analyse(START, Probe(torch.zeros(M, N)), seen, forecast=members)
    x = members.flatten(1).double()
    modes = divided(members, share, task.error)[1]
    p = (1 - share) * torch.cov(x.T) + matrix(modes)
    h = torch.eye(N, dtype=torch.float64)[points.places]
    point = point_deviation(modes, (1, H, W)).flatten()[points.places].double() ** 2
    assert torch.allclose((h @ matrix(modes) @ h.T).flatten(), point, rtol=0.3)
    mean = x.mean(0) + p @ h.T @ (h @ p @ h.T + r).inverse() @ (y - h @ x.mean(0))
    assert (drawn.flatten(1).double().mean(0) - mean).abs().max() < 0.1


def stacked() -> ZonalCovariance:
    """Of three channels with errors in common."""
    rng = torch.Generator().manual_seed(2)
    waves = torch.randn(60, 1, H, W, generator=rng).cumsum(-1)
    own = torch.randn(60, 3, H, W, generator=rng)
    errors = torch.tensor([1.0, 0.7, -0.5])[:, None, None] * (waves - waves.mean(0)) + 0.3 * own
    return ZonalCovariance.fit([errors], threshold=0.5)


def test_covariances_between_the_levels_of_a_row_are_exact():
    error, size = stacked(), 3 * N
    whole = error.apply(torch.eye(size).reshape(size, 3, H, W)).flatten(1)
    at = torch.arange(size).reshape(3, H, W)[:, :, 1]
    for row in range(H):
        own = whole[at[:, row][:, None], at[:, row]]
        found = error.between_channels(error.eigenvalues)[row]
        torch.testing.assert_close(found, own, rtol=1e-3, atol=1e-3)


def test_a_columns_levels_share_the_static_error():
    """One column, not localised: the Kalman filter with R + H P H^T, all of it."""
    error = stacked()
    members = torch.randn(M, 3, H, W, generator=torch.Generator().manual_seed(3))
    index, r = torch.tensor([[0], [N], [2 * N]]) + W + 2, torch.tensor([0.3, 0.2, 0.5])
    one, channel = torch.ones(3), torch.arange(3)
    operator = LinearObservationOperator(index, one[:, None], (3, H, W), one, one, channel)
    y = torch.tensor([[1.0, -0.4, 0.8]])
    found = flow_update(LETKF(), members, [GaussianConstraint(operator, y, r)], error)
    x, h = members.flatten(1).double(), torch.zeros(3, 3 * N).double()
    h[channel, index.flatten()] = 1.0
    p = error.apply(torch.eye(3 * N).reshape(3 * N, 3, H, W)).flatten(1).double()
    b = torch.cov(x.T)
    gain = b @ h.T @ (h @ (b + p) @ h.T + torch.diag(r)).inverse()
    mean = x.mean(0) + gain @ (y[0] - h @ x.mean(0))
    torch.testing.assert_close(found.flatten(1).double().mean(0), mean, rtol=1e-3, atol=1e-3)
    after = torch.cov(found.flatten(1).double().T)
    torch.testing.assert_close(after, b - gain @ h @ b, rtol=1e-3, atol=1e-3)


def test_what_members_leave_unknown_is_their_variance_by_area():
    """Of rows of area 0.5 and 1.5, variances 0.2 and 0.4: 0.35; a channel left out says nothing."""
    offsets = torch.tensor([-1.0, 0.0, 1.0])[:, None, None, None]
    scale = torch.tensor([0.2, 0.4]).sqrt()[None, None, :, None]
    members = (offsets * scale).expand(3, 1, 2, 4)
    wild = torch.cat([members, 30 * members], 1)
    area = torch.tensor([0.5, 1.5], dtype=torch.float64)
    assert unknown(members, area) == pytest.approx(0.35)
    assert unknown(wild, area, [1]) == pytest.approx(0.35)
    assert unknown(wild, area) == 1.0, "no more than the climate"


def test_share_and_static_error_fade_as_members_settle():
    """To those times the members' variance over the climate's, to the power."""
    world, rng = toy(), torch.Generator().manual_seed(0)
    climate = spectral([3.0, 1.0, 0.5])
    members = 0.5 * torch.randn(M, 1, H, W, generator=rng)
    seen = GaussianConstraint(Points([1, 4, 6]), torch.tensor([[1.0, -0.5, 0.7]]), 0.3)

    def analysis(static, share, fading):
        task = Assimilation(
            prior=Prior(GaussianDenoiser(torch.zeros(1, H, W), climate, SCHEDULE)),
            world=world.world,
            sampling=EXACT,
            forecaster=world.forecaster,
            form="hybrid",
            error=climate.with_eigenvalues(static * climate.eigenvalues),
            filter=LETKF(),
            share=share,
            fading=fading,
        )
        return task.analyse(START, MemberGenerator(0, M), seen, forecast=members)

    left = unknown(members, torch.from_numpy(world.world.grid.area_weights))
    assert 0.1 < left < 0.5
    found = analysis(0.2, 0.4, 0.5)
    torch.testing.assert_close(found, analysis(0.2 * left**0.5, 0.4 * left**0.5, 0.0))
    assert (found - analysis(0.2, 0.4, 0.0)).abs().max() > 0.05
    with expect(GapzooError, "fading -1"):
        analysis(0.2, 0.4, -1)


def test_members_are_scaled_to_what_their_innovations_ask_for():
    """Ten thousand points of B = 1, R = 1 that lie 3 deviations of R + B off: B asks for 17."""
    members = torch.randn(20, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    points, none = Points(list(range(10_000))), torch.zeros(1, 100, 100)
    mean = members.mean(0)

    def spread(size: float, doubt: float) -> float:
        noise = torch.randn(10_000, generator=torch.Generator().manual_seed(1))
        y = (mean.flatten() + size * 2**0.5 * noise)[None]
        found = consistent(members, [GaussianConstraint(points, y, 1.0)], none, doubt)
        assert torch.allclose(found.mean(0), mean, atol=1e-5)
        return float(found.var(0).mean() / members.var(0).mean())

    assert spread(1.0, 0.3) == pytest.approx(1.0, abs=0.05)
    assert spread(1.5, 1e3) == pytest.approx(1.5**2 * 2 - 1, rel=0.05)
    assert spread(3.0, 1e3) == pytest.approx(4.0, rel=1e-3), "no further than that"
    assert 1.0 < spread(1.5, 0.1) < spread(1.5, 0.3) < 1.5**2 * 2 - 1


def test_an_ensembles_error_stays_below_half_of_the_climate():
    """Where members are as wide as the climate; a regressed error keeps what it is."""
    climate = zonal()
    wide = climate.with_eigenvalues(3 * climate.eigenvalues)
    assert torch.allclose(_below(wide, climate).eigenvalues, 0.5 * climate.eigenvalues)
    narrow = climate.with_eigenvalues(0.1 * climate.eigenvalues)
    assert torch.equal(_below(narrow, climate).eigenvalues, narrow.eigenvalues)
    regressed = RegressedErrors(climate, wide.eigenvalues, torch.ones(len(wide.eigenvalues)))
    assert _below(regressed, climate) is regressed and _below(wide, None) is wide


def test_channels_that_are_kept_are_those_of_the_forecasts():
    """To the bit; the others are what they are without. A first analysis keeps nothing."""
    world, rng = flat_world(2, H, W), torch.Generator().manual_seed(0)
    climate = ZonalCovariance.fit([torch.randn(40, 2, H, W, generator=rng)])
    denoiser = PreconditionedDenoiser(
        Wild(), SCHEDULE, climatology=climate, cond_channels=world.cond_channels
    )
    members = climate.sample(torch.randn(M, 2, H, W, generator=rng))
    seen = GaussianConstraint(Points([1, 4, 6]), torch.tensor([[1.0, -0.5, 0.7]]), 0.3)
    labels = world.channels.labels

    def analysis(kept, forecast=members):
        task = Assimilation(
            prior=Prior(denoiser.eval()),
            world=world,
            sampling=Sampling(steps=4),
            forecaster=toy().forecaster,
            error=climate.with_eigenvalues(0.1 * climate.eigenvalues),
            rtps=0.5,
            kept=kept,
        )
        return task.analyse(START, MemberGenerator(0, M), seen, forecast=forecast)

    plain, found = analysis(()), analysis([labels[0]])
    assert torch.equal(found[:, 0], members[:, 0]) and not torch.equal(plain[:, 0], members[:, 0])
    assert torch.equal(found[:, 1:], plain[:, 1:])
    assert torch.equal(analysis(labels[0]), found), "a name alone is one"
    assert torch.equal(analysis([labels[0]], None), analysis((), None))
    with expect(GapzooError, "no variable or channel 'humidity'"):
        analysis(["humidity"])


@pytest.mark.parametrize("rtps", [0.5, 1.0])
def test_an_analysis_is_relaxed_to_the_spread_of_its_forecasts(rtps):
    world = toy()
    members = torch.randn(M, 1, H, W, generator=torch.Generator().manual_seed(0))
    seen = world.observed(torch.zeros(3))
    streams = MemberGenerator(0, M)

    def analysis(part: float):
        task = Assimilation(
            prior=world.prior,
            world=world.world,
            sampling=EXACT,
            forecaster=world.forecaster,
            error=spectral([STATIC] * 3),
            rtps=part,
        )
        return task.analyse(START, streams.fork("a"), seen, forecast=members)

    plain, wider = analysis(0.0), analysis(rtps)
    torch.testing.assert_close(wider.mean(0), plain.mean(0), rtol=1e-4, atol=1e-4)
    expected = rtps * members.std(0) + (1 - rtps) * plain.std(0)
    torch.testing.assert_close(wider.std(0), expected, rtol=1e-4, atol=1e-4)
    with expect(GapzooError, "rtps 1.5"):
        analysis(1.5)
