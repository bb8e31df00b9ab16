"""Fine-tuning from a recipe: another grid, other channels, parts, low ranks; what it is worth."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import worlds
from models import recipe_text, toy
from safetensors import safe_open
from worlds import NAMES, ToySource, expect, fill

from gapzoo import checkpoint, cli, fit, payoff, prepare, recipe
from gapzoo.core import GapzooError
from gapzoo.data.archive import Archive
from gapzoo.data.module import Reader
from gapzoo.denoisers import DENOISERS
from gapzoo.training.adapt import input_labels

SHIPPED = sorted((Path(__file__).parent.parent / "recipes" / "finetune").glob("*.yaml"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy(tmp_path_factory.mktemp("data") / "toy.zarr")


@pytest.fixture(scope="module")
def finer(tmp_path_factory):
    """Another world: a finer grid, another realisation, two of the three channels."""
    path = tmp_path_factory.mktemp("data") / "finer.zarr"
    return toy(path, height=6, width=12, names=NAMES[1:], seed=3)


@pytest.fixture(scope="module")
def parent(archive, tmp_path_factory):
    """Checkpoint of a prior, trained for a while, and its run."""
    folder = tmp_path_factory.mktemp("parent")
    (folder / "r.yaml").write_text(recipe_text(archive.path, max_steps=40, learning_rate=0.01))
    wanted = recipe.load(folder / "r.yaml")
    return fit.fit(wanted, folder / "run", folder / "unet_small.toy"), folder / "run"


@pytest.fixture
def tune(parent, tmp_path):
    """Fine-tune the parent by a recipe's changes; the run and the checkpoint."""

    def tune(archive, *changes):
        path = tmp_path / "r.yaml"
        path.write_text(recipe_text(archive.path, name="tuned"))
        wanted = prepare.finetuning(str(parent[0]), path, list(changes))
        run = tmp_path / wanted.name
        return run, checkpoint.load(fit.fit(wanted, run, tmp_path / "made" / wanted.name))

    return tune


def losses(run) -> dict[int, float]:
    with (run / "metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["name"] == "val/loss"]
    return {int(r["step"]): float(r["value"]) for r in rows}


def trained(run) -> dict[str, torch.Tensor]:
    """Averaged weights of a run's last state: W + B A added up here, others as bfloat16."""
    state = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    start = "averaged.backbone."
    own = {n.removeprefix(start): w for n, w in state.items() if n.startswith(start)}
    plain = {n: w for n, w in own.items() if "parametrizations." not in n}
    for name in [n for n in own if n.endswith(".original")]:
        a, b = (own[name.removesuffix("original") + f"0.{part}"] for part in "ab")
        weight = own[name] + (b @ a).reshape(own[name].shape)
        plain[name.replace("parametrizations.", "").removesuffix(".original")] = weight
    low = len(plain) == len(own)
    return {n: w.bfloat16().float() if low else w for n, w in plain.items()}


def reloads(made, run, x) -> bool:
    """Whether a loaded checkpoint denoises to the bit as what was trained, and has its weights."""
    network = DENOISERS.build(made.details["model"], **made.details["arguments"])
    network.load_state_dict(trained(run))
    twin, t = dataclasses.replace(made, network=network.eval()), torch.tensor(0.5)
    same = [torch.equal(w, made.network.state_dict()[n]) for n, w in trained(run).items()]
    return all(same) and torch.equal(made.denoiser(x, t).mean, twin.denoiser(x, t).mean)


def test_another_world_begins_with_the_parents_weights(tune, finer, parent):
    run, made = tune(finer, "max_steps=4")
    old = checkpoint.load(parent[0])
    assert made.name == "unet_small.tuned" and made.world.shape == (2, 6, 12)
    assert made.details["parent"] == f"unet_small.toy (SHA-256 {old.hash})"
    assert made.details["parent"] in (run.parent / "made" / made.name / "card.md").read_text()
    assert made.covariance is not None and made.covariance.shape == (2, 6, 12), "fitted anew"
    reader = Reader(finer, made.world)
    out = made.denoiser(reader.state(np.arange(2)), torch.tensor(0.5)).mean
    assert torch.isfinite(out).all()
    assert set(losses(run)) == {0, 4}, "validated before the first step too"


def test_new_channels_begin_at_the_wiener_filter(finer, archive, tmp_path):
    """From two channels to three: the new one is denoised by the covariance alone."""
    few = tmp_path / "few.yaml"
    few.write_text(recipe_text(archive.path, max_steps=12, learning_rate=0.01))
    changes = ["variables=[temperature]"]
    made = fit.fit(recipe.load(few, changes), tmp_path / "run", tmp_path / "few")
    more = tmp_path / "more.yaml"
    more.write_text(recipe_text(archive.path, name="more", precision="fp32"))
    wanted = prepare.finetuning(str(made), more)
    data = prepare.data_of(wanted)
    module = prepare.prepare(wanted, data)
    assert data.world.channels.labels == list(NAMES)
    x = Reader(archive, data.world).state(np.arange(4))
    ratio = module.denoiser.scales(x, torch.tensor(0.5))[1]
    linear = module.denoiser.climatology.filter(x, lambda b, r: b / (b + r**2), ratio.flatten()[:1])
    raw = module.live(x, torch.zeros(4), torch.zeros(4, module.live.cond_channels, *x.shape[2:]))
    assert not raw[:, 2].any() and raw[:, :2].any()
    assert linear.shape == x.shape


def test_channels_are_carried_by_name_and_new_ones_are_trained(archive, finer, tmp_path):
    """From two channels to two: one has its weights from another place, one goes, one is new."""
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(archive.path, max_steps=12, learning_rate=0.01))
    few = recipe.load(path, ["variables=[temperature]"])
    old = checkpoint.load(fit.fit(few, tmp_path / "few", tmp_path / "parent"))
    path.write_text(recipe_text(finer.path, name="other", learning_rate=0.01))
    wanted = prepare.finetuning(str(tmp_path / "parent"), path)
    before, first = old.network.state_dict(), _first(wanted)
    made = checkpoint.load(fit.fit(wanted, tmp_path / "run", tmp_path / "made"))
    after, was, now = made.network.state_dict(), *(input_labels(c.world, True) for c in (old, made))
    new = {"surface_pressure", "filtered surface_pressure"}
    assert set(now) - set(was) == new and set(was) - set(now) == {NAMES[0], f"filtered {NAMES[0]}"}
    for n, label in enumerate(now):
        column, moved = first["stem.weight"][:, n], after["stem.weight"][:, n]
        theirs = None if label in new else before["stem.weight"][:, was.index(label)]
        assert not column.any() if theirs is None else torch.equal(column, theirs), label
        assert theirs is not None or moved.count_nonzero() > 0.9 * moved.numel(), label
    for name in ("head.weight", "head.bias"):
        assert torch.equal(first[name][0], before[name][1]), "temperature@0.95, second of two"
        assert not first[name][1].any() and after[name][1].all()
    rest = before.keys() - {"stem.weight", "head.weight", "head.bias"}
    assert all(torch.equal(first[name], before[name]) for name in rest)
    assert reloads(made, tmp_path / "run", Reader(finer, made.world).state(np.arange(4)))


def _first(wanted):
    """Weights before the first step."""
    return prepare.prepare(wanted, prepare.data_of(wanted)).live.state_dict()


def test_the_parents_covariance_and_normalisation_are_kept_on_purpose(tune, archive, parent):
    changes = ["covariance=parent", "normalisation=parent", "weights=new", "max_steps=1"]
    _, made = tune(archive, *changes, "train=[1979-01-01,1979-06-30]")
    old = checkpoint.load(parent[0])
    assert made.covariance.same_basis(old.covariance)
    assert torch.equal(made.world.std, old.world.std)
    assert made.world.details["train"] == ["1979-01-01", "1979-06-30"]


def test_an_archive_without_statistics_is_trained_on_under_the_parents(tune, parent, tmp_path):
    """Three realisations of 240 days: all of the world but where the data are from is kept."""
    path = tmp_path / "thrice.zarr"
    fill(path, ToySource(end="1979-08-28", realisations=3, seed=5))
    periods = ["train=[1979-01-01,1979-06-30]", "validate=[1979-07-01,1979-08-28]"]
    with expect(GapzooError, "thrice.zarr has no statistics", "normalisation: parent"):
        tune(Archive(path), *periods)
    kept = ["covariance=parent", "normalisation=parent", "hold=true"]
    _, made = tune(Archive(path), *kept, *periods, "max_steps=6")
    old = checkpoint.load(parent[0])
    for name, array in checkpoint._world_arrays(old.world).items():
        assert torch.equal(checkpoint._world_arrays(made.world)[name], array), name
    assert made.world.details["data_hash"] == Archive(path).hash != old.world.details["data_hash"]
    assert made.world.details["train"] == ["1979-01-01", "1979-06-30"]
    moved = (w != old.network.state_dict()[n] for n, w in made.network.state_dict().items())
    assert any(one.any() for one in moved), "it was trained"


def test_another_forcing_or_grid_under_a_parents_normalisation_is_refused(
    tune, parent, tmp_path, monkeypatch
):
    fill(tmp_path / "grid.zarr", ToySource(end="1979-08-28", height=6, width=12))
    with expect(GapzooError, "'normalisation: parent'", "another grid"):
        tune(Archive(tmp_path / "grid.zarr"), "normalisation=parent")
    monkeypatch.setattr(worlds, "FORCINGS", ("sea_surface_temperature", "carbon_dioxide"))
    fill(tmp_path / "forcing.zarr", ToySource(end="1979-08-28"))
    with expect(GapzooError, "takes the forcing sea_surface_temperature, sea_ice_cover", "carbon"):
        tune(Archive(tmp_path / "forcing.zarr"), "normalisation=parent")


def test_what_does_not_fit_on_purpose_is_refused(tune, finer):
    with expect(GapzooError, "'model' is the parent's"):
        tune(finer, "model=unet_base")
    with expect(GapzooError, "'normalisation: parent'", "has 'temperature@0.2', which toy here"):
        tune(finer, "normalisation=parent")
    with expect(GapzooError, "no covariance of these channels"):
        tune(finer, "covariance=parent")
    with expect(GapzooError, "no parameter matches 'tail.*'"):
        tune(finer, "freeze=[tail.*]")


def test_low_ranks_train_alone_and_leave_a_plain_checkpoint(tune, archive, parent):
    run, made = tune(archive, "lora_rank=2", "thaw=['head.bias']", "learning_rate=0.01")
    old, new = checkpoint.load(parent[0]).network.state_dict(), made.network.state_dict()
    assert old.keys() == new.keys()
    kept = [n for n in old if torch.equal(old[n], new[n])]
    assert "norm.weight" in kept and "stem.bias" in kept, "what is no matrix stays"
    assert "stem.weight" not in kept and "head.bias" not in kept
    change = (new["stem.weight"] - old["stem.weight"]).flatten(1)
    values = torch.linalg.svdvals(change)
    assert values[2:].max() < 1e-4 * values[0], "of rank 2: nothing is rounded to bfloat16"
    again = checkpoint.load(fit.export(run, run.parent / "again"))
    assert again.hash == made.hash


def test_low_ranks_by_the_command_line(parent, archive, tmp_path):
    """Only matrices with an update move; the checkpoint is W + B A, with nothing of B and A."""
    path, run, output = (tmp_path / name for name in ("r.yaml", "run", "made"))
    path.write_text(recipe_text(archive.path, name="low", learning_rate=0.01))
    changes = ["lora_rank=2", "lora_layers=[down.*]", "--run", run, "--output", output]
    assert cli.main([str(word) for word in ("finetune", parent[0], path, *changes)]) == 0
    old, made = checkpoint.load(parent[0]), checkpoint.load(output)
    before, after = old.network.state_dict(), made.network.state_dict()
    matrices = {n for n, p in old.network.named_parameters() if p.ndim > 1}
    adapted = {n for n in matrices if n.startswith("down.")}
    assert {n for n in before if not torch.equal(before[n], after[n])} == adapted < matrices
    with safe_open(output / checkpoint.WEIGHTS, "pt") as file:
        written = {n for n in file.keys() if n.startswith("network.")}  # noqa: SIM118
    assert written == {f"network.{n}" for n in before}
    counted = [c.details["training"]["parameters"] for c in (old, made)]
    assert counted[0] == counted[1] and made.name == "unet_small.low"
    x, t = Reader(archive, made.world).state(np.arange(4)), torch.tensor(0.5)
    assert reloads(made, run, x)
    assert not torch.equal(made.denoiser(x, t).mean, old.denoiser(x, t).mean)


def test_frozen_parts_stay(tune, archive, parent):
    _, made = tune(archive, "freeze=['down.*','stem.*']")
    old, new = checkpoint.load(parent[0]).network.state_dict(), made.network.state_dict()
    for name in old:
        frozen = name.startswith(("down.", "stem."))
        assert torch.equal(old[name], new[name]) == frozen or not frozen, name
    assert not torch.equal(old["head.weight"], new["head.weight"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes_of_fine_tuning_are_built_and_stepped(path, parent, archive, tmp_path):
    """As they are, on another archive and from another parent."""
    changes = [f"archive={archive.path}", "train=[1979-01-01,1979-12-31]", "variables=[]"]
    changes += ["validate=[1980-01-01,1980-06-30]", "max_minutes=null", "max_steps=2"]
    changes += ["steps_per_epoch=2", "validation_samples=8", "covariance_states=200"]
    wanted = prepare.finetuning(str(parent[0]), path, [*changes, "accelerator=cpu"])
    run = tmp_path / "run"
    made = checkpoint.load(fit.fit(wanted, run, tmp_path / "made"))
    assert made.name == f"unet_small.{recipe.load(path).name}"
    assert made.details["training"]["steps"] == 2 and set(losses(run)) == {0, 2}
    old, new = checkpoint.load(parent[0]).network.state_dict(), made.network.state_dict()
    assert not torch.equal(old["stem.weight"], new["stem.weight"])


def run_of(folder, archive, losses, **changes):
    """A run folder with these validation losses, one every 10 steps of 4 samples."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe_text(archive.path, **changes))
    rows = [f"{10 * n},val/loss,{loss}" for n, loss in enumerate(losses)]
    (folder / "metrics.csv").write_text("\n".join(["step,name,value", *rows]) + "\n")
    return folder


def test_what_it_is_worth_is_told_in_a_table(archive, tmp_path):
    """From scratch 0.7 takes 200 samples, fine-tuned 40: five times fewer."""
    fine = run_of(tmp_path / "fine", archive, [0.9, 0.7, 0.65])
    fresh = run_of(tmp_path / "fresh", archive, [1.0, 0.95, 0.9, 0.85, 0.8, 0.7])
    lines = payoff.table(fine, fresh).splitlines()
    assert "| 0.7000 | 40 | 200 | 5.0 |" in lines and "| 0.9500 | 0 | 40 | at once |" in lines
    assert "Best, fine-tuned: 0.6500 after 80 samples, 0.9000 before the first step." in lines
    poor = run_of(tmp_path / "poor", archive, [0.9, 0.75])
    assert "| 0.7000 | not reached | 200 | |" in payoff.table(poor, fresh).splitlines()
    other = run_of(tmp_path / "other", archive, [0.5], noise_mean=-1.0)
    with expect(GapzooError, "'noise_mean' is 0.0", "-1.0", "do not compare"):
        payoff.table(fine, other)
    axes = payoff.figure(fine, fresh).axes[0]
    assert [line.get_xydata().tolist()[-1] for line in axes.lines] == [[80, 0.65], [200, 0.7]]
    assert 0.5 < axes.get_ylim()[0] < 0.65, "differences are seen"


def test_samples_until_a_loss():
    points = [(0, 1.0), (16, 0.8), (32, 0.9), (48, 0.5)]
    assert [payoff.until(points, loss) for loss in (1.0, 0.85, 0.5, 0.4)] == [0, 16, 48, None]


def test_a_run_killed_before_its_first_saving_goes_on(archive, tmp_path):
    """And what has been written down is not written again: recipe, versions, covariance."""
    (tmp_path / "r.yaml").write_text(recipe_text(archive.path, max_steps=4))
    wanted, run = recipe.load(tmp_path / "r.yaml"), tmp_path / "run"
    run.mkdir()
    fit.describe(wanted, run)
    prepare.covariance_of(wanted, prepare.data_of(wanted), run)
    before = (run / "covariance.safetensors").stat().st_mtime_ns
    made = fit.fit(fit.read_run(run), run, tmp_path / "made", resume=True)
    assert checkpoint.load(made).details["training"]["steps"] == 4
    assert (run / "covariance.safetensors").stat().st_mtime_ns == before
    assert {"recipe.yaml", "versions.json", "metrics.csv", "last.ckpt"} <= {
        p.name for p in run.iterdir()
    }
    with expect(GapzooError, "exists; resume it"):
        fit.fit(wanted, run, tmp_path / "made")
    wanted.covariance_states = 100
    other = prepare.covariance_of(wanted, prepare.data_of(wanted), run)
    assert (run / "covariance.safetensors").stat().st_mtime_ns != before and other is not None
