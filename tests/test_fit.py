"""From a recipe to a checkpoint on a tiny archive: reloads alike, resumes to the bit."""

import csv
import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from models import TINY, recipe_text, saved, toy, toy_forecaster, toy_prior
from worlds import NAMES, expect

from gapzoo import checkpoint, cli, fit, measure, recipe
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.module import Reader, States, world_of
from gapzoo.tasks.settings import beside
from gapzoo.tasks.single_weights import single_weights

SHIPPED = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy(tmp_path_factory.mktemp("data") / "toy.zarr")


@pytest.fixture(scope="module")
def wanted(archive, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "unet_small.toy.yaml"
    path.write_text(recipe_text(archive.path))
    return recipe.load(path)


@pytest.fixture(scope="module", autouse=True)
def often():
    """Save every second step, so that a kill can fall in the middle of an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "train", partial(fit.train, checkpoint_steps=2))
        patch.setattr(measure, "ERROR_FORECASTS", 12)
        yield


@pytest.fixture(scope="module")
def whole(wanted, tmp_path_factory):
    """Run folder and checkpoint of an uninterrupted run of two epochs of four steps."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "run", fit.fit(wanted, folder / "run", folder / "unet_small.toy")


def module_of(wanted):
    data = fit.data_of(wanted)
    return fit.module_of(wanted, data.world, fit.covariance_of(wanted, data))


def weights(run):
    return torch.load(run / "last.ckpt", weights_only=True)


def test_a_trained_model_reloads_to_identical_outputs(whole, wanted, archive):
    run, output = whole
    loaded = checkpoint.load(output)
    module = module_of(wanted)
    module.load_state_dict(weights(run)["state_dict"])
    with torch.no_grad():
        for p in module.backbone.parameters():
            p.copy_(p.bfloat16().float())  # what a checkpoint keeps
    reader = Reader(archive, loaded.world)
    x, cond = reader.state(np.arange(3)), reader.condition(np.arange(3))
    for t in (0.2, 0.8):
        level = torch.tensor(t)
        first = module.averaged(x, level, cond=cond).mean
        assert torch.equal(loaded.denoiser(x, level, cond=cond).mean, first)


def test_training_moved_the_weights(whole, wanted):
    """The toy's states are Gaussian: there is nothing to learn beyond its Wiener filter."""
    fresh = module_of(wanted).backbone.state_dict()
    kept = checkpoint.load(whole[1]).network.state_dict()
    for name in ("stem.weight", "head.weight"):
        assert not torch.equal(kept[name], fresh[name].bfloat16().float())
    with (whole[0] / "metrics.csv").open() as file:
        rows = {(int(r["step"]), r["name"]): float(r["value"]) for r in csv.DictReader(file)}
    assert all(0.5 < rows[(step, "val/loss")] < 2 for step in (4, 8))


def test_training_states_that_are_held_change_nothing(whole, wanted, tmp_path):
    fit.fit(dataclasses.replace(wanted, hold=True), tmp_path / "run", tmp_path / "made")
    held, read = (weights(run)["state_dict"] for run in (tmp_path / "run", whole[0]))
    assert all(torch.equal(held[k], read[k]) for k in read)


@pytest.mark.slow  # a compiler at work: two minutes
def test_a_compiled_network_trains_alike(whole, wanted, tmp_path):
    made = fit.fit(dataclasses.replace(wanted, compile=True), tmp_path / "run", tmp_path / "made")
    compiled, plain = checkpoint.load(made), checkpoint.load(whole[1])
    assert compiled.network.state_dict().keys() == plain.network.state_dict().keys()
    one, other = (float(p.details["scores"]["validation loss"]) for p in (compiled, plain))
    assert one == pytest.approx(other, rel=2e-3), "AdamW's first steps are those of rounding"


def test_a_priors_second_moments_are_measured_and_used(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "MOMENT_STATES", 32)
    made = tmp_path / "unet_small.toy"
    assert cli.main(["calibrate", str(whole[1]), "--output", str(made)]) == 0
    plain, loaded = checkpoint.load(whole[1]), checkpoint.load(made)
    assert plain.prior.moments is None and loaded.hash == plain.hash
    x, t = torch.randn(2, *loaded.world.shape), torch.tensor(0.5)
    without = loaded.prior.given(moments=False)(x, t).mean
    assert torch.equal(plain.prior.given()(x, t).mean, without)
    off = loaded.prior.given()(x, t).mean - without
    assert 0 < off.abs().max() < 0.5 * x.abs().max()
    assert cli.main(["calibrate", str(made), "unet_small.toy"]) == 2
    assert "is a prior itself" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("model", ["convcast_small", "crpscast_small"])
def test_a_forecaster_s_draws_are_measured_with_its_errors(archive, tmp_path, monkeypatch, model):
    """And again on other forecasts, under what is left beside the forecaster's own draws."""
    monkeypatch.setattr(measure, "EVALUATIONS", 24)
    prior = toy_prior(archive, wiener=True)
    made = toy_forecaster(archive, model=model)
    saved(prior, tmp_path / "p")
    folder = saved(made, tmp_path / "f")
    text = recipe_text(archive.path, name=made.name, kind="forecaster", model=model, hours=[24])
    (folder / "recipe.yaml").write_text(text)
    assert cli.main(["calibrate", str(folder), str(tmp_path / "p")]) == 0
    found = checkpoint.load(folder)
    weights = found.single(24)
    assert found.single(6) is None
    error, reader = found.error(24, prior.covariance), Reader(archive, prior.world)
    rows = archive.indices("1980-01-01", "1980-06-30")[:-1:8]
    left = beside(error, found.forecaster.stochastic)
    assert bool((left.eigenvalues < error.eigenvalues).all()) == (model == "crpscast_small")
    common = (prior.prior, found.forecaster, left, reader, rows, 24)
    again = single_weights(*common, MemberGenerator(3, 1))
    assert (again.table - weights.table)[:2].abs().mean() < 0.1  # other forecasts, other noise
    assert (again.scale - weights.scale).abs().mean() < 0.15
    assert weights.table.min() >= 0 and weights.table[1].max() > 0.5
    assert error.recurrence.min() >= 0 and error.recurrence.max() < 0.5


def test_exporting_the_run_gives_the_same_checkpoint(whole, tmp_path):
    run, output = whole
    again = fit.export(run, tmp_path / "again")
    name = "weights.safetensors"
    assert (again / name).read_bytes() == (output / name).read_bytes()
    assert (again / "recipe.yaml").read_text() == (output / "recipe.yaml").read_text()


def test_the_card_tells_what_the_run_ran_on_not_what_exports_it(whole, tmp_path):
    """Nor, after resuming, the last part alone."""
    run = shutil.copytree(whole[0], tmp_path / "run")
    old = {"device": "CPU, abacus", "date": "1979-01-01", "git commit": "abc1234"}
    old["versions"] = "gapzoo 0.0.1, torch 1.0"
    (run / "versions.json").write_text(json.dumps(old))
    made = fit.export(run, tmp_path / "made")
    training = checkpoint.load(made).details["training"]
    assert {key: training[key] for key in old} == old
    for key, value in old.items():
        assert f"| {key} | {value} |" in (made / "card.md").read_text()
    for _ in range(2):
        fit.describe(fit.read_run(run), run)
    found = fit.ran_on(run)
    assert found == {key: f"{value}, then {fit.versions()[key]}" for key, value in old.items()}
    (run / "versions.json").write_text("{")
    with expect(GapzooError, "versions.json", "cannot be read", "resume the run"):
        fit.export(run, tmp_path / "again")


def test_a_machine_without_git_trains_too(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert fit.versions()["git commit"] == "unknown"


def test_the_command_on_the_card_trains_the_same(wanted, tmp_path, monkeypatch):
    """The shipped recipe's where nothing was changed; else that of the recipe in the folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipes" / f"{wanted.name}.yaml"
    path.parent.mkdir()
    path.write_text(recipe.dump(wanted))
    assert fit._command(wanted) == "gapzoo train recipes/unet_small.toy.yaml"
    changed = dataclasses.replace(wanted, seed=1)
    assert fit._command(changed) == "gapzoo train checkpoints/unet_small.toy/recipe.yaml"


def test_a_checkpoint_says_where_it_comes_from(whole, wanted, archive):
    details = checkpoint.load(whole[1]).details
    training = details["training"]
    assert training["steps"] == 8 and training["samples"] == "32"
    assert details["world"]["details"]["train"] == ["1979-01-01", "1979-12-31"]
    assert details["world"]["details"]["data_hash"] == archive.hash
    assert {"device", "git commit", "versions", "date", "command"} <= training.keys()
    assert recipe.load(whole[1] / "recipe.yaml") == wanted


@pytest.mark.parametrize("killed", [3, 5, 7])
def test_resumed_equals_uninterrupted(whole, wanted, tmp_path, monkeypatch, killed):
    """Killed within the first or the second epoch, one step after the last saving."""
    real, count = States.raw, [0]

    def failing(self, numbers):
        count[0] += self.positions[0] < 365  # training batches alone
        if count[0] > killed:
            raise RuntimeError("killed")
        return real(self, numbers)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(States, "raw", failing)
        with pytest.raises(RuntimeError, match="killed"):
            fit.fit(wanted, run, tmp_path / "none")
    assert 0 < weights(run)["global_step"] <= killed
    assert not (tmp_path / "none").exists()
    output = fit.fit(fit.read_run(run), run, tmp_path / "resumed", resume=True)
    first, second = weights(whole[0]), weights(run)
    assert second["global_step"] == 8
    left, right = first["state_dict"], second["state_dict"]
    assert [k for k in left if not torch.equal(left[k], right[k])] == []
    assert checkpoint.load(output).hash == checkpoint.load(whole[1]).hash


def test_a_forecaster_is_trained_and_knows_its_errors(archive, tmp_path):
    path = tmp_path / "convcast_small.toy.yaml"
    text = recipe_text(archive.path, name="convcast_small.toy", kind="forecaster")
    text = text.replace("model: unet_small", "model: convcast_small")
    path.write_text(text + "hours: [24, 48]\n")
    wanted = recipe.load(path, ["max_steps=3"])
    loaded = checkpoint.load(fit.fit(wanted, tmp_path / "run", tmp_path / "made"))
    world = loaded.world
    reader = Reader(archive, world)
    for hours in (24, 48):
        eigenvalues = loaded.error(hours).eigenvalues
        assert eigenvalues.shape == (3, 4, 5)
        # AR(1) anomalies that hardly a network can foretell: 2 s^2 (1 - r^lead) by persistence
        persisted = 2 * (1 - 0.8 ** (hours / 24))
        assert 0.4 * persisted < eigenvalues.mean() < 2 * persisted
    assert loaded.error(48).eigenvalues.mean() > loaded.error(24).eigenvalues.mean()
    x = reader.state(np.array([400]))
    assert torch.isfinite(loaded.forecaster.step(x, archive.times[400], 24)).all()


def test_a_new_forecaster_counts_change_in_the_step_of_its_data(archive):
    """Daily data: the typical change over 24 h is that of the archive, not over 6 h."""
    text = {"kind": "forecaster", "model": "convcast_small", "max_steps": 1, "hours": [24]}
    wanted = recipe.Recipe(archive=str(archive.path), model_options=TINY, **text)
    world = world_of(archive)
    module = fit.module_of(wanted, world)
    change = (torch.from_numpy(world.diff_std)[:, None, None] / world.std).square().mean((1, 2))
    found = module.network.spread(torch.tensor([24.0]))[0, :, 0, 0]
    assert found.tolist() == pytest.approx(change.sqrt().tolist(), rel=0.01)


def test_a_subset_of_variables_is_what_is_learned(archive, tmp_path):
    wanted = recipe.Recipe(
        archive=str(archive.path), max_steps=1, variables=["surface_pressure"], model_options=TINY
    )
    data = fit.data_of(wanted)
    module = fit.module_of(wanted, data.world)
    assert data.world.channels.labels == [NAMES[2]] and module.arguments["channels"] == 1
    with expect(GapzooError, "'surface_presure'; did you mean 'surface_pressure'?"):
        wanted.variables = ["surface_presure"]
        fit.data_of(wanted)


def test_loss_weights_bring_whitened_errors_half_way_back(archive, wanted):
    """Area weights times (point spread over channel spread), mean 1 over points and channels."""
    world = world_of(archive)
    weights = fit.module_of(wanted, world).loss.weights
    area = torch.from_numpy(world.grid.area_weights).float()[:, None]
    point = world.std / torch.from_numpy(world.spread).float()[:, None, None]
    known = area * point
    ratio = weights.expand_as(known) / known
    assert ratio.min() == pytest.approx(ratio.max().item(), rel=1e-5)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes_are_built_and_stepped(path, archive, tmp_path):
    """Networks and options as they are, on another archive; the checkpoint loads and runs."""
    changes = [f"archive={archive.path}", "train=[1979-01-01,1979-12-31]", "batch_size=4"]
    changes += ["validate=[1980-01-01,1980-06-30]", "variables=[]", "max_minutes=null"]
    changes += ["max_steps=2", "steps_per_epoch=2", "validation_samples=8", "covariance_states=200"]
    changes += [
        "start=''",
        "basis=''",
        "corrected=[]",
        "hours=[24,48]",
        "accelerator=cpu",
        "covariance=fit",
    ]
    changes += ["normalisation=archive", "compile=false", "modes=0"]
    changes += [f"waves={min(recipe.load(path).waves, archive.grid.shape[1] // 2)}"]
    wanted = recipe.load(path, changes)
    loaded = checkpoint.load(fit.fit(wanted, tmp_path / "run", tmp_path / "made"))
    assert loaded.name == path.stem and loaded.details["training"]["steps"] == 2
    with (tmp_path / "run" / "metrics.csv").open() as file:
        losses = [float(r["value"]) for r in csv.DictReader(file) if r["name"] == "val/loss"]
    assert len(losses) == 1 and 0.1 < losses[0] < 3


def test_a_run_goes_on_by_its_own_recipe_alone(tmp_path, capsys):
    """A change beside --resume would be lost."""
    assert cli.main(["train", "--resume", str(tmp_path), "max_steps=3"]) == 2
    assert "a run goes on by its own recipe" in " ".join(capsys.readouterr().err.split())


def test_what_is_no_run_is_refused(tmp_path):
    with expect(GapzooError, "is no run folder", "recipe.yaml"):
        fit.read_run(tmp_path)
