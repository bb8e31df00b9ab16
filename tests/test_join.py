"""Joined priors: each network where it is asked, to the bit, saved and loaded; what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from models import recipe_text, shake, toy, toy_forecaster, toy_prior
from worlds import expect

from gapzoo import checkpoint, measure, recipe
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.denoisers import DENOISERS
from gapzoo.diffusion.moments import LEVELS
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.join import join

AT = 0.8
BELOW, ABOVE = torch.tensor([0.05, 0.8]), torch.tensor([0.81, 30.0])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy(tmp_path_factory.mktemp("join") / "toy.zarr")


@pytest.fixture(scope="module")
def save(archive, tmp_path_factory):
    """A toy prior around its Wiener filter, changed by ``change``, in a folder of its own."""

    def save(name: str, seed: int, change=lambda made: made) -> str:
        made = toy_prior(archive, wiener=True)
        made.name, made.details = name, {**made.details, "shaped": True}
        shake(made.network, seed)
        made = change(made)
        folder = tmp_path_factory.mktemp("priors") / name
        text = recipe_text(archive.path, name=name, model=made.details["model"])
        return str(checkpoint.save(folder, made, text))

    return save


@pytest.fixture(scope="module")
def parents(save):
    def wider(made):
        arguments = {**made.details["arguments"], "widths": [24]}
        network = shake(DENOISERS.build("unet_small", **arguments), 5)
        details = {**made.details, "arguments": arguments}
        return dataclasses.replace(made, network=network, details=details)

    return save("unet_small.low", 1), save("unet_small.high", 2, wider)


@pytest.fixture(scope="module")
def made(parents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined") / "stages.toy"
    return join("stages.toy", *parents, AT, folder)


def outputs(name, ratios: torch.Tensor) -> torch.Tensor:
    """Posterior means (B,C,H,W) at noise ratios, a row each."""
    source = checkpoint.load(name)
    denoiser, (channels, height, width) = source.denoiser, source.world.shape
    g = torch.Generator().manual_seed(0)
    x = torch.randn(len(ratios), channels, height, width, generator=g)
    cond = torch.randn(len(ratios), source.world.cond_channels, height, width, generator=g)
    with torch.no_grad():
        return denoiser(x, denoiser.schedule.t_of_sigma(ratios), cond=cond).mean


def test_each_is_asked_where_it_belongs_to_the_bit(made, parents):
    low, high = parents
    for ratios, own, other in ((BELOW * 0.99, low, high), (ABOVE, high, low)):
        assert torch.equal(outputs(made, ratios), outputs(own, ratios))
        assert not torch.equal(outputs(made, ratios), outputs(other, ratios))


def test_rows_of_a_batch_on_both_sides_are_split(made, parents):
    ratios = torch.tensor([3.0, 0.1, 1.0, 0.5])
    mixed = outputs(made, ratios)
    low, high = (outputs(one, ratios) for one in parents)
    torch.testing.assert_close(mixed[[0, 2]], high[[0, 2]], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed[[1, 3]], low[[1, 3]], rtol=1e-5, atol=1e-6)


def test_it_is_a_checkpoint_like_any_other(made, parents):
    """Weights survive saving, in half the size, the card names both parents, calibration works."""
    found = checkpoint.load(made)
    for stage, one in zip(found.network.networks, parents, strict=True):
        own = checkpoint.load(one).network.state_dict()
        assert all(torch.equal(w, own[n]) for n, w in stage.state_dict().items())
    card, low, high = (made / "card.md").read_text(), *(checkpoint.load(p) for p in parents)
    for text in ("gapzoo join stages.toy", low.hash, high.hash, "unet_small.low up to a noise"):
        assert text in card
    resolved = recipe.load(made / "recipe.yaml")
    assert resolved.model == "stages" and resolved.model_options["edges"] == [AT]
    assert "moments" not in found.extras
    before = outputs(made, ABOVE)
    measure.measure_moments(str(made))
    again = checkpoint.load(made)
    assert "moments" in again.extras and torch.equal(outputs(made, ABOVE), before)


def test_second_moments_may_be_measured_on_other_data(made, archive, tmp_path):
    """On what the recipe names, said again, they are the same; elsewhere others. It is kept."""

    def measured(folder: str, **where) -> torch.Tensor:
        path = measure.measure_moments(str(made), tmp_path / folder, **where)
        assert (path / "recipe.yaml").read_text() == (made / "recipe.yaml").read_text()
        return checkpoint.load(path).extras["moments"]

    other = toy(tmp_path / "other.zarr", seed=4)
    own = measured("own")
    period = ["1980-01-01", "1980-06-30"]
    assert torch.equal(measured("same", archive=str(archive.path), validate=period), own)
    assert not torch.equal(measured("archive", archive=str(other.path)), own)
    assert not torch.equal(measured("period", validate=["1980-07-01", "1980-12-31"]), own)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_draws_from_it(made, name):
    source = checkpoint.load(made)
    options = {} if name in ("decoupled", "single") else {"steps": 4}
    sampler = SAMPLERS.build(name, denoiser=source.prior.given(moments=False), **options)
    shape = source.world.shape
    drawn = sampler(shape=shape, generator=MemberGenerator(seed=0, members=2))
    assert drawn.shape == (2, *shape) and torch.isfinite(drawn).all()


def test_second_moments_are_those_of_the_network_that_is_asked(save, tmp_path):
    def with_moments(value):
        def change(made):
            return dataclasses.replace(
                made, extras={**made.extras, "moments": torch.full((LEVELS, 10), value)}
            )

        return change

    both = save("a.low", 1, with_moments(0.1)), save("a.high", 2, with_moments(0.2))
    found = checkpoint.load(join("stages.m", *both, 2.0, tmp_path / "m")).extras["moments"]
    levels = np.geomspace(0.05, 80.0, LEVELS)
    assert torch.equal(found[:, 0] == 0.1, torch.from_numpy(levels <= 2.0))


def doubled(values: np.ndarray) -> None:
    values *= 2


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda m: m.details.update(schedule="cosine"), ["another schedule (cosine, not edm)"]),
        (lambda m: m.details.update(precision="bf16"), ["another precision (bf16, not fp32)"]),
        (lambda m: m.details.update(shaped=False), ["another shaped (False, not True)"]),
        (
            lambda m: m.extras.update({k: v * 1.1 for k, v in m.extras.items()}),
            ["another covariance than 'unet_small.low'", "'covariance: parent'"],
        ),
        (lambda m: doubled(m.world.climatology.mean_coefficients), ["another climatology than"]),
        (lambda m: doubled(m.world.forcing_climatology), ["another climatology of the forcing"]),
        (lambda m: doubled(m.world.static), ["another static fields"]),
    ],
)
def test_what_does_not_go_together_is_named(save, parents, tmp_path, change, parts):
    def changed(made):
        change(made)
        return made

    with expect(GapzooError, "checkpoint 'other.high' has", *parts):
        join("stages.x", parents[0], save("other.high", 3, changed), 1.0, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_other_channels_kinds_and_levels_are_refused(parents, archive, tmp_path):
    few = toy_prior(archive, ["surface_pressure"])
    folder = checkpoint.save(tmp_path / "few", few, recipe_text(archive.path))
    with expect(GapzooError, "lacks 'temperature@0.2'"):
        join("stages.x", parents[0], str(folder), 1.0)
    forecaster = checkpoint.save(tmp_path / "fc", toy_forecaster(archive), "name: toy\n")
    with expect(GapzooError, "is a forecaster; join two priors"):
        join("stages.x", str(forecaster), parents[0], 1.0)
    with expect(GapzooError, "edges [0.0]", "positive"):
        join("stages.x", *parents, 0.0, tmp_path / "x")
