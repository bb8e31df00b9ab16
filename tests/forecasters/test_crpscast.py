"""CRPSCast: members by noise, the CRPS of two of them, a spread that is learned, one start."""

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from models import TINY, saved, shake, toy_forecaster, toy_prior
from torch.utils.data import DataLoader
from worlds import expect, toy_archive

from gapzoo import checkpoint, fit, recipe
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.module import world_of
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.evaluators.crps import ensemble_crps
from gapzoo.forecasters import FORECASTERS, NETWORKS
from gapzoo.training import CRPSCast, DiffCast, Optimisation
from gapzoo.training.crpscast import coefficients, pair_crps
from gapzoo.training.leading import LeadingModes

C, H, W = 2, 8, 16
TIME = pd.Timestamp("1980-03-01")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("crpscast") / "toy.zarr")


def module(**options) -> CRPSCast:
    arguments = {"channels": C, "architecture": TINY, "precision": "fp32"} | options
    return CRPSCast(change=torch.tensor([0.8, 0.8]), **arguments)


def forecaster(world):
    sizes = {"channels": len(world.channels), "cond_channels": world.cond_channels}
    network = shake(NETWORKS.build("crpscast_small", **sizes, **TINY))
    return FORECASTERS.build("crpscast", world=world, network=network)


def batch(seed: int, size: int) -> dict[str, torch.Tensor]:
    """x' = 0.8 x + 0.6 e, one e a sample and channel: a standard deviation of 0.6."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(size, C, H, W, generator=g)
    e = torch.randn(size, C, 1, 1, generator=g)
    return {"state": x, "target": 0.8 * x + 0.6 * e, "hours": torch.full((size,), 6.0)}


def test_the_crps_of_two_members_is_the_fair_one():
    g = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 5, C, H, W, generator=g, requires_grad=True)
    truth = torch.randn(5, C, H, W, generator=g)
    found = pair_crps(pair, truth)
    torch.testing.assert_close(found, ensemble_crps(pair.movedim(0, 1), truth))
    found.sum().backward()
    assert set(pair.grad.unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_coefficients_are_projections_on_waves():
    x, angle = torch.randn(3, W, generator=torch.Generator().manual_seed(0)), torch.arange(W) / W
    found = coefficients(x, 3)
    turns = [2 * torch.pi * m * angle for m in (1, 2)]
    waves = [
        torch.ones(W),
        *(2**0.5 * t.cos() for t in turns),
        *(-(2**0.5) * t.sin() for t in turns),
    ]
    torch.testing.assert_close(found, x @ torch.stack(waves, 1) / W**0.5)
    for waves in (W // 2 + 1, -1):
        with expect(GapzooError, f"{waves} waves on {W} points; give 1 to {W // 2}"):
            coefficients(x, waves)


def test_waves_tell_a_shift_of_the_circle_from_weather():
    """Of the same spread at every point; by what is known of Gaussian members and truths."""
    g, n = torch.Generator().manual_seed(0), 20000
    truth, weather = torch.randn(n, W, generator=g), torch.randn(2, n, W, generator=g)
    shift = torch.randn(2, n, 1, generator=g).expand(-1, -1, W)
    fair = torch.pi**-0.5  # of members and truth from N(0, 1)
    for pair in (weather, shift):
        assert pair_crps(pair, truth).mean() == pytest.approx(fair, rel=0.02)
    found = [
        pair_crps(coefficients(p, 3), coefficients(truth, 3)).mean(0) for p in (weather, shift)
    ]
    torch.testing.assert_close(found[0], torch.full((5,), fair), rtol=0.03, atol=0)
    mean = (2 / torch.pi) ** 0.5 * ((1 + W) ** 0.5 - (W / 2) ** 0.5)  # N(0, W) for N(0, 1)
    wanted = torch.tensor([mean, *[(2 / torch.pi) ** 0.5] * 4])  # 0 for N(0, 1)
    torch.testing.assert_close(found[1], wanted, rtol=0.03, atol=0)


def test_half_of_the_loss_is_the_waves(archive):
    plain, new, data = module(), module(waves=3), batch(0, 4)
    noise = new.noise(data, "validate", 0)
    pair = new._pair(new.network, data["state"], data["hours"], None, *noise)
    pair, truth = (x / new.network.spread(data["hours"]) for x in (pair, data["target"]))
    waves = pair_crps(coefficients(pair, 3), coefficients(truth, 3)).mean()
    points = plain.loss(plain.network, data, *noise).loss
    torch.testing.assert_close(new.loss(new.network, data, *noise).loss, (points + waves) / 2)
    made = wanted(archive, model="convcast_small", waves=3)
    with expect(GapzooError, "'convcast_small' draws nothing"):
        fit.prepare(made, fit.data_of(made))
    for share in ({"waves": 3}, {"modes": 0.5}, {"corrected": [6]}):
        made = wanted(archive, kind="prior", model="unet_small", **share)
        with expect(GapzooError, f"a prior has no '{next(iter(share))}'; leave them out"):
            fit.module_of(made, world_of(archive))


def climate(seed: int = 0) -> ZonalCovariance:
    """Of states that have a mean of variance 4 over the globe, and weather."""
    g = torch.Generator().manual_seed(seed)
    states = torch.randn(400, C, H, W, generator=g)
    return ZonalCovariance.fit([states + 2 * torch.randn(400, 1, 1, 1, generator=g)])


def test_leading_modes_are_the_climates_in_units_of_change():
    whole, g = climate(), torch.Generator().manual_seed(1)
    changes, least = 0.3 * torch.randn(64, C, H, W, generator=g), 1.2
    leading = LeadingModes.fit(whole, least, changes)
    keep = torch.cat(whole.above(least))
    waves = torch.arange(W // 2 + 1).repeat_interleave(torch.tensor(whole.ranks))[keep]
    found, modes = leading(changes), whole.analyse(changes)[:, keep]
    single = (waves == 0) | (waves == W // 2)
    assert 0 < keep.sum() < len(keep) and single.any() and not single.all()
    assert found.shape == (64, 2 * len(waves) - single.sum())
    torch.testing.assert_close(found.square().mean(), torch.tensor(1.0), rtol=0.02, atol=0)
    scaled = modes / modes.abs().square().mean(0).sqrt()
    power = (scaled.abs().square() * torch.where(single, 1.0, 2.0)).sum(1)
    torch.testing.assert_close(found.square().sum(1), power, rtol=1e-4, atol=0)
    pair = torch.stack([changes, -changes])
    torch.testing.assert_close(leading(pair), torch.stack([found, -found]))
    with expect(GapzooError, "no mode of the climate has a variance of 1e+06"):
        LeadingModes.fit(whole, 1e6, changes)


def test_leading_modes_tell_what_latitudes_have_in_common():
    """Members of the spread of their error at every point and wavenumber, too much together."""
    g, n = torch.Generator().manual_seed(2), 4000
    truth, apart = (
        torch.randn(m, n, C, H, 1, generator=g).expand(-1, -1, -1, -1, W) for m in (1, 2)
    )
    together = torch.randn(2, n, 1, 1, 1, generator=g).expand(-1, -1, C, H, W)
    leading = LeadingModes.fit(climate(), 20.0, truth[0])
    assert leading.ranks == [1] + [0] * (W // 2)
    fair = torch.pi**-0.5  # of members and truth from N(0, 1)
    for pair in (apart, together):
        assert pair_crps(pair, truth[0]).mean() == pytest.approx(fair, rel=0.02)
        waves = pair_crps(coefficients(pair, 3), coefficients(truth[0], 3))
        assert waves[..., 0].mean() == pytest.approx(fair * W**0.5, rel=0.02)
    loss = [pair_crps(leading(pair), leading(truth[0])).mean().item() for pair in (apart, together)]
    many = C * H
    wide = (2 / torch.pi) ** 0.5 * ((1 + many) ** 0.5 - (many / 2) ** 0.5)  # N(0, C H) for N(0, 1)
    assert loss == pytest.approx([fair, wide], rel=0.05)


def test_half_of_the_loss_is_the_leading_modes(archive, tmp_path):
    data, leading = batch(0, 4), LeadingModes.fit(climate(), 1.2, batch(1, 64)["state"])
    plain, new = module(waves=3), module(waves=3, leading=leading)
    noise = new.noise(data, "validate", 0)
    pair = new._pair(new.network, data["state"], data["hours"], None, *noise)
    modes = pair_crps(leading(pair), leading(data["target"])).mean()
    rest = plain.loss(plain.network, data, *noise).loss
    assert new.network.hours == 6  # the lead's own growth is 1
    torch.testing.assert_close(new.loss(new.network, data, *noise).loss, (rest + modes) / 2)
    assert new.state_dict().keys() == plain.state_dict().keys()


def test_a_recipe_takes_its_leading_modes_from_a_prior(archive, tmp_path):
    prior = str(saved(toy_prior(archive, wiener=True), tmp_path / "prior"))
    made = wanted(archive, basis=prior, modes=0.5)
    found = fit.prepare(made, fit.data_of(made))
    assert isinstance(found.leading, LeadingModes) and sum(found.leading.ranks) > 0
    fit.fit(made, tmp_path / "run", tmp_path / "made")
    with expect(GapzooError, "'modes' takes a prior's climatology; name its checkpoint as 'basis'"):
        fit.module_of(wanted(archive, modes=0.5), world_of(archive))
    with expect(GapzooError, "'corrected' takes a prior's climatology"):
        fit.module_of(wanted(archive, corrected=[24]), world_of(archive))
    with expect(GapzooError, "'corrected' names the lead 18 h; 'hours' has"):
        fit.module_of(wanted(archive, basis=prior, corrected=[18]), world_of(archive))
    bare = str(saved(toy_forecaster(archive), tmp_path / "f"))
    made = wanted(archive, basis=bare, modes=0.5)
    with expect(GapzooError, "has no modes of these channels on this grid"):
        fit.prepare(made, fit.data_of(made))
    made = wanted(archive, model="convcast_small", basis=prior, modes=0.5)
    with expect(GapzooError, "'convcast_small' draws nothing, so it has no 'modes'"):
        fit.prepare(made, fit.data_of(made))


def test_every_parameter_gets_a_gradient():
    new, data = module(), batch(0, 4)
    shake(new.network).requires_grad_(True)
    new.loss(new.network, data, *new.noise(data, "validate", 0)).loss.backward()
    idle = [n for n, p in new.network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_it_learns_the_spread_of_a_stochastic_map(tmp_path):
    trained = module(optimisation=Optimisation(peak=1e-2, warmup=20, decay=0.98))
    loop = lightning.Trainer(
        max_steps=300, logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, accelerator="cpu", gradient_clip_val=1.0,
    )  # fmt: skip
    loop.fit(trained, DataLoader([batch(s, 16) for s in range(1, 301)], batch_size=None))
    x, members = batch(0, 1)["state"], 200
    z = torch.randn(members, 32, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        found = trained(x.repeat(members, 1, 1, 1), torch.full((members,), 6.0), None, z)
    assert found.std(0).mean() == pytest.approx(0.6, rel=0.2)
    assert (found.mean(0) - 0.8 * x[0]).square().mean().sqrt() < 0.25


def test_a_member_is_the_same_on_any_batch_size(archive):
    model = forecaster(world_of(archive))
    x = torch.randn(1, *model.world.shape, generator=torch.Generator().manual_seed(1))
    x = x.repeat(4, 1, 1, 1)
    together = model.step(x, TIME, 48, generator=MemberGenerator(5, 4))
    assert (together[0] - together[1]).abs().max() > 1e-3
    for member in range(4):
        alone = model.step(x[:1], TIME, 48, generator=MemberGenerator(5, [member]))
        torch.testing.assert_close(alone[0], together[member], rtol=1e-4, atol=1e-5)
    parts = MemberGenerator(5, 4).split(2)
    halves = model.steps([x[:2], x[2:]], [TIME, TIME], 48, [None, None], parts)
    torch.testing.assert_close(torch.cat(halves), together, rtol=1e-4, atol=1e-5)


def test_parts_of_a_step_draw_anew_and_no_generator_is_the_middle(archive):
    model = forecaster(world_of(archive))
    x = torch.randn(2, *model.world.shape, generator=torch.Generator().manual_seed(1))
    whole, stream = model.step(x, TIME, 48, generator=MemberGenerator(5, 2)), MemberGenerator(5, 2)
    first = model.step(x, TIME, 24, generator=stream)
    later = TIME + pd.Timedelta(days=1)
    torch.testing.assert_close(model.step(first, later, 24, generator=stream), whole)
    assert torch.equal(model.step(x, TIME, 24), model.step(x, TIME, 24))
    assert not torch.equal(model.step(x, TIME, 24), first)


def wanted(archive, **changes) -> recipe.Recipe:
    settings = {"name": "crpscast_small.toy", "kind": "forecaster", "model": "crpscast_small"}
    settings |= {"archive": str(archive.path), "model_options": TINY, "hours": [24], "warmup": 2}
    settings |= {"train": ["1979-01-01", "1979-12-31"], "validate": ["1980-01-01", "1980-06-30"]}
    settings |= {"batch_size": 4, "steps_per_epoch": 2, "validation_samples": 8, "max_steps": 4}
    return recipe.Recipe(**(settings | {"accelerator": "cpu", "ema_decay": 0.5} | changes))


def test_it_starts_from_convcast_and_its_members_differ_at_once(archive, tmp_path):
    parent = toy_forecaster(archive)
    start = str(saved(parent, tmp_path / "f"))
    made = wanted(archive, start=start)
    new = fit.prepare(made, fit.data_of(made))
    assert isinstance(new, CRPSCast)
    theirs, own = parent.network.state_dict(), new.averaged.state_dict()
    assert own.keys() - theirs.keys() == {"body.embed.noise.weight"}
    assert all(torch.equal(own[k], theirs[k]) for k in theirs if k != "scale")
    x, z = torch.randn(2, *parent.world.shape), torch.randn(2, 32)
    leads = torch.full((2,), 24.0)
    new.averaged.scale.copy_(parent.network.scale)
    new.averaged.hours = parent.network.hours
    torch.testing.assert_close(new.averaged(x, leads), parent.network(x, leads))
    assert (new.averaged(x, leads, None, z) - new.averaged(x, leads)).abs().max() > 1e-5


@pytest.mark.parametrize("kind", [CRPSCast, DiffCast])
def test_a_resumed_run_equals_an_uninterrupted_one(archive, tmp_path, monkeypatch, kind):
    """Killed in its fourth step; the weights at the end are the same to the bit."""
    names = {
        "name": f"{kind.__name__.lower()}_small.toy",
        "model": f"{kind.__name__.lower()}_small",
    }
    made = wanted(archive, checkpoint_minutes=1e-9, **names)
    assert type(fit.prepare(made, fit.data_of(made))) is kind
    whole = checkpoint.load(fit.fit(made, tmp_path / "whole", tmp_path / "one"))
    step = kind.training_step

    def failing(self, batch, batch_idx):
        if self.trainer.global_step == 3:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(kind, "training_step", failing)
        with pytest.raises(RuntimeError, match="killed"):
            fit.fit(made, run, tmp_path / "none")
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] < 4
    resumed = checkpoint.load(fit.fit(fit.read_run(run), run, tmp_path / "two", resume=True))
    assert resumed.hash == whole.hash


def test_an_exported_run_steps_and_knows_its_errors(archive, tmp_path):
    fit.fit(wanted(archive), tmp_path / "run", tmp_path / "made")
    loaded = checkpoint.load(fit.export(tmp_path / "run", tmp_path / "exported"))
    assert loaded.forecaster.stochastic and loaded.error(24).eigenvalues.shape == (3, 4, 5)
    x = torch.randn(2, *loaded.world.shape)
    assert torch.isfinite(loaded.forecaster.step(x, TIME, 24, None, MemberGenerator(1, 2))).all()


def test_what_cannot_be_is_refused(archive, tmp_path):
    with expect(GapzooError, "'convcast_small' takes no noise"):
        CRPSCast("convcast_small", channels=C)
    with expect(GapzooError, "a noise of 0 numbers"):
        fit.module_of(wanted(archive, model_options={**TINY, "noise": 0}), world_of(archive))
    with expect(GapzooError, "'crpscast_smal'", "crpscast_small"):
        fit.module_of(wanted(archive, model="crpscast_smal"), world_of(archive))
    start = str(saved(toy_forecaster(archive), tmp_path / "f"))
    wide = wanted(archive, start=start, model_options={**TINY, "widths": [32]})
    with expect(GapzooError, "convcast_small.toy", "another network"):
        fit.prepare(wide, fit.data_of(wide))
    network = NETWORKS.build("crpscast_small", channels=C, **TINY)
    with expect(GapzooError, "noise of shape (1, 3)"):
        network(torch.zeros(1, C, H, W), torch.ones(1), None, torch.zeros(1, 3))
    assert np.isfinite(network(torch.zeros(1, C, H, W), torch.ones(1)).sum().item())
