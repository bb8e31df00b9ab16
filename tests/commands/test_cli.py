"""The command line: what works prints its result; bad input is one line and exit code 2."""

import json
import shutil

import pytest
import torch
from models import recipe_text, saved, toy, toy_prior

from gapzoo import checkpoint, cli


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy(tmp_path_factory.mktemp("data") / "toy.zarr")


@pytest.fixture(scope="module")
def prior(archive, tmp_path_factory):
    return saved(toy_prior(archive), tmp_path_factory.mktemp("models") / "p")


@pytest.fixture
def recipe(archive, tmp_path):
    path = tmp_path / "unet_small.toy.yaml"
    path.write_text(recipe_text(archive.path, max_steps=2))
    return path


@pytest.fixture
def protocol(tmp_path):
    path = tmp_path / "toy.yaml"
    lines = ["name: toy", "track: analysis", "world: toy", "cases: 1", "members: 2"]
    lines += ["networks: 1", "densities: [0.5]", "period: [1980-01-01, 1980-12-31]"]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def refused(capsys):
    """Run a command that must fail; its one line."""

    def run(*arguments) -> str:
        code = cli.main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert code == 2, out + err
        assert err.startswith("gapzoo: ") and err.count("\n") == 1, err
        return err

    return run


@pytest.fixture
def printed(capsys):
    """Run a command that must succeed; what it printed, on one line."""

    def run(*arguments) -> str:
        code = cli.main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert code == 0, err
        return " ".join(out.split())

    return run


def test_check_says_what_would_be_trained(printed, recipe):
    out = printed("check", recipe)
    assert "unet_small.toy: unet_small" in out and "3 channels of toy" in out
    assert "1 channels of toy" in printed("check", recipe, "variables=[surface_pressure]")


def test_check_estimates_memory_and_refuses_what_does_not_divide(printed, refused, recipe):
    out = printed("check", recipe)
    for part in (
        "weights, average and optimiser",
        "activations of 4 samples",
        "in all",
        "covariance",
    ):
        assert part in out
    assert "activations of 2 samples" in printed("check", recipe, "devices=2", "strategy=ddp")
    assert "does not divide by 3 devices" in refused("check", recipe, "devices=3")
    assert "no checkpoint 'nowhere'" in refused("check", recipe, "start=nowhere")


def test_check_refuses_what_devices_cannot_do(refused, recipe, tmp_path):
    """And so does training, before any other process starts."""
    assert "no strategy 'dpp'; did you mean 'ddp'?" in refused("check", recipe, "strategy=dpp")
    assert "accelerator 'gpus'; did you mean" in refused("check", recipe, "accelerator=gpus")
    mixture = ["model=mixture_small", "trainer.devices=2", "trainer.strategy=fsdp"]
    recipe.write_text(recipe.read_text().replace("model_options: ", "# "))
    for command in (["check", recipe], ["train", recipe]):
        places = ["--run", tmp_path / "run"] if command[0] == "train" else []
        line = refused(*command, *mixture, *places)
        assert "cannot spread experts by noise level; take 'ddp'" in line


def test_finetune_card_and_payoff(printed, refused, recipe, archive, tmp_path):
    first = tmp_path / "first"
    printed("train", recipe, "--run", tmp_path / "run", "--output", first)
    tuning = tmp_path / "tuning.yaml"
    tuning.write_text(recipe_text(archive.path, name="tuned", max_steps=2))
    out = printed("check", tuning, "lora_rank=1", "--checkpoint", first)
    assert "unet_small.tuned: unet_small" in out and "of them trained" in out
    changes = ["covariance=parent"]
    for name, more in {"tuned": [], "fresh": ["weights=new"]}.items():
        places = ["--run", tmp_path / name, "--output", tmp_path / "made" / name]
        printed("finetune", first, tuning, *changes, *more, *places)
    assert "times fewer" in printed("payoff", tmp_path / "tuned", tmp_path / "fresh")
    picture = tmp_path / "payoff.png"
    printed("payoff", tmp_path / "tuned", tmp_path / "fresh", "--png", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "has no metrics.csv" in refused("payoff", _run(recipe, tmp_path), tmp_path / "fresh")
    made = tmp_path / "made" / "tuned"
    (tmp_path / "rows").mkdir()
    for name, value in (("unet_small.tuned", 0.25), ("unet_small.twin", 0.5)):  # the same weights
        row = {"checkpoint": name, "weights_sha256": checkpoint.load(made).hash}
        row |= {"scores": {"0.1": {"crps": value}}}
        (tmp_path / "rows" / f"toy{name == 'unet_small.twin':d}.json").write_text(json.dumps(row))
    out = printed("card", made, "--write", "--board", tmp_path / "rows")
    assert "unet_small.tuned" in out and "toy0, 0.1: CRPS" in out and "0.2500" in out
    assert "toy0, 0.1: CRPS | 0.2500" in (made / "card.md").read_text()
    assert "toy1" not in (made / "card.md").read_text()
    assert "unet_small.toy (SHA-256" in (made / "card.md").read_text()
    assert "the parent is another network" in refused(
        "train", recipe, f"start={first}", "model_options.widths=[32]", "--run", tmp_path / "x"
    )


def _run(recipe, folder):
    (folder / "empty").mkdir()
    shutil.copy(recipe, folder / "empty" / "recipe.yaml")
    return folder / "empty"


def test_train_export_and_run_on_the_leaderboard(printed, recipe, protocol, archive, tmp_path):
    run, made = tmp_path / "run", tmp_path / "made"
    assert "checkpoint written to" in printed("train", recipe, "--run", run, "--output", made)
    assert checkpoint.load(made).details["training"]["steps"] == 2
    printed("export", run, "--output", tmp_path / "again")
    assert checkpoint.load(tmp_path / "again").hash == checkpoint.load(made).hash
    arguments = ["--archive", archive.path, "--folder", tmp_path / "board"]
    options = [f"prior={made}", "steps=2"]
    out = printed("leaderboard", "run", protocol, "gap", *options, *arguments)
    assert "toy: CRPS" in out and "toy: spread/skill" in out
    row = json.loads((tmp_path / "board" / "toy.gap.json").read_text())
    shown = printed("leaderboard", "show", "toy", "--folder", tmp_path / "board")
    assert f"{row['scores']['0.5']['crps']:.3f}" in shown
    printed("leaderboard", "tune", protocol, "gap", options[0], "steps=[2,3]", *arguments)
    tuned = tmp_path / "board" / "toy.gap.tuned.json"
    best = json.loads(tuned.read_text())["best"]["0.5"]["steps"]
    chosen = {"tuned": f"tuned={tuned}", "given": f"steps={best}"}
    for name, how in chosen.items():
        more = [options[0], how, *arguments, "--name", name]
        printed("leaderboard", "run", protocol, "--entry", "gap", *more)
    made = [json.loads((tmp_path / "board" / f"toy.{n}.json").read_text()) for n in chosen]
    assert made[0]["scores"] == made[1]["scores"] and made[0]["sampling"]["tuned"]


def test_changes_stand_before_or_behind_the_options(capsys):
    words = ["assimilate", "r.yaml", "members=4", "--observations", "o.parquet", "seed=2"]
    assert cli.parse(words).changes == ["members=4", "seed=2"]
    words = ["observe", "--start", "2006", "--end", "2007", "fraction=0.1"]
    assert cli.parse(words).options == ["fraction=0.1"]
    for wrong in (["--seeed", "2"], ["--seeed=2"]):
        with pytest.raises(SystemExit):
            cli.parse([*words, *wrong])
        assert f"unrecognized arguments: {wrong[0]}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.parse(["inspect", "a.zarr", "x=1"])
    words = ["leaderboard", "run", "weather", "--folder", "rows", "climatology", "samples=2"]
    assert cli.parse(words).words == ["climatology", "samples=2"]
    assert cli.parse(words[:-1]).words == ["climatology"]
    for wrong in (["gap", *words[3:]], ["--entry", "gap", *words[3:]]):  # two entries
        with pytest.raises(SystemExit):
            cli.parse([*words[:3], *wrong])
        assert "unrecognized arguments: climatology" in capsys.readouterr().err


def test_list_shows_what_is_registered(printed):
    out = printed("list")
    for name in ("unet_small", "convcast_small", "mmps", "heun", "speedy", "persistence"):
        assert name in out
    assert "unet_small" in printed("list", "unet*") and "heun" not in printed("list", "unet*")


def test_help_of_every_command(capsys):
    for arguments in (["--help"], ["train", "--help"], ["leaderboard", "run", "--help"]):
        with pytest.raises(SystemExit) as done:
            cli.main(arguments)
        assert done.value.code == 0 and "usage: gapzoo" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        cli.main(["trian"])
    assert done.value.code == 2 and "trian" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("learning_rat=1", ["'learning_rat'", "'learning_rate'"]),
        ("batch_size=few", ["'batch_size'", "few"]),
        ("start=", ["'start=' has nothing after '='", "start=null for none", "leave it out"]),
        ("kind=priors", ["'priors'"]),
        ("variables=[geopotential]", ["'geopotential'"]),
        ("variables=[temprature]", ["'temprature'", "'temperature'"]),
        ("archive=nowhere.zarr", ["nowhere.zarr", "gapzoo build-data"]),
        ("model=unet_smal", ["'unet_smal'", "'unet_small'"]),
        ("model_options.width=3", ["'width'"]),
        ("schedule=edn", ["'edn'", "'edm'"]),
        ("schedule_options.sigma=3", ["'sigma'"]),
        ("precision=fp16", ["'fp16'", "'bf16'"]),
        ("preconditioning=wiener", ["'wiener'", "'climatology'"]),
        ("learning_rate=-1", ["peak"]),
        ("train=[1900-01-01,1901-01-01]", ["no step", "covers 1979-01-01"]),
    ],
)
def test_mistakes_in_recipes(refused, recipe, change, parts):
    line = refused("check", recipe, change)
    for part in parts:
        assert part in line


def test_recipes_that_are_none(refused, tmp_path):
    assert "nothing to train; give a recipe, or --resume" in refused("train")
    assert "gone.yaml cannot be read" in refused("train", tmp_path / "gone.yaml")
    assert "is no run folder" in refused("train", "--resume", tmp_path)
    assert "is no run folder" in refused("export", tmp_path)


def test_a_run_folder_in_use_is_refused(refused, recipe, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "last.ckpt").touch()
    line = refused("train", recipe, "--run", run, "--output", tmp_path / "made")
    assert "last.ckpt exists; resume it" in line


def test_a_run_without_a_saved_state_cannot_be_exported(refused, recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe.read_text())
    assert "last.ckpt" in refused("export", tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"not a checkpoint")
    assert "last.ckpt" in refused("export", tmp_path)


@pytest.mark.parametrize("damage", ["metadata", "array", "attributes", "shard"])
def test_unreadable_archives(refused, recipe, archive, tmp_path, damage):
    copy = shutil.copytree(archive.path, tmp_path / "copy.zarr")
    if damage == "metadata":
        (copy / "zarr.json").write_text("{ broken")
    elif damage == "array":
        shutil.rmtree(copy / "climatology")
    elif damage == "attributes":
        body = json.loads((copy / "zarr.json").read_text())
        body["attributes"].pop("channels")
        (copy / "zarr.json").write_text(json.dumps(body))
    else:
        shutil.rmtree(copy / "state" / "c" / "1")
    line = refused("train", recipe, f"archive={copy}", "--run", tmp_path / "run")
    assert "copy.zarr" in line


@pytest.fixture
def on_board(refused, protocol, archive):
    """Run an entry that must fail, under the toy protocol or another; its one line."""

    def run(*arguments, under=protocol) -> str:
        return refused("leaderboard", "run", under, *arguments, "--archive", archive.path)

    return run


def test_checkpoints_that_are_none(on_board, prior, tmp_path):
    assert "no checkpoint 'nowhere'" in on_board("gap", "prior=nowhere")
    (tmp_path / "checkpoint.json").write_text('{"a": 1}')
    assert "is it a checkpoint?" in on_board("gap", f"prior={tmp_path}")
    copy = shutil.copytree(prior, tmp_path / "copy")
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "weights.safetensors is missing, damaged" in on_board("gap", f"prior={copy}")
    assert "'prior'" in on_board("gap")


def test_a_checkpoint_of_other_channels(on_board, archive, tmp_path):
    other = saved(toy_prior(archive, ["temperature"]), tmp_path / "other")
    line = on_board("gap", f"prior={other}")
    assert "'surface_pressure'" in line and "unet_small.toy" in line


def test_a_network_that_gives_nan(on_board, archive, tmp_path):
    made = toy_prior(archive)
    with torch.no_grad():
        made.network.head.bias.fill_(torch.nan)
    broken = saved(made, tmp_path / "nan")
    line = on_board("gap", f"prior={broken}", "steps=2")
    assert "not finite" in line and "2 steps" in line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["gapp"], ["'gapp'", "'gap'"]),
        (["climatology", "colour=red"], ["'colour'"]),
        (["gap", "prior"], ["'prior'", "key=value"]),
        (["gap", "prior=[1,"], ["prior=[1,"]),
        (["optimal_interpolation", "tuned=gone.json"], ["gone.json", "leaderboard tune"]),
        (["optimal_interpolation", "length=-1"], ["length"]),
    ],
)
def test_mistakes_on_the_leaderboard(on_board, arguments, parts):
    line = on_board(*arguments)
    for part in parts:
        assert part in line


def test_protocols_that_do_not_fit(on_board, tmp_path):
    assert "nothing.yaml cannot be read" in on_board("climatology", under="nothing")
    assert "u_component_of_wind" in on_board("climatology", under="analysis-speedy-t21")
    other = tmp_path / "other.yaml"
    other.write_text("name: other\ntrack: analysis\nworld: elsewhere")
    assert "'other' is for elsewhere, the archive is toy" in on_board("climatology", under=other)


def test_a_board_without_rows(refused, tmp_path):
    line = refused("leaderboard", "show", "toy", "--folder", tmp_path)
    assert "no rows of protocol 'toy'" in line
