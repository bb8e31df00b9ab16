"""Recipes: bases, changes, and every mistake named with its nearest."""

import dataclasses
from pathlib import Path

import pytest
from worlds import expect

from gapzoo import recipe
from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS
from gapzoo.diffusion import SCHEDULES
from gapzoo.forecasters import NETWORKS

TUNING = sorted((Path(__file__).parent.parent / "recipes" / "finetune").glob("*.yaml"))
SHIPPED = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "r.yaml") -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes_are_sound(path):
    """They load, open with the command that runs them, and name what is registered."""
    wanted = recipe.load(path)
    assert path.read_text().startswith(f"# gapzoo train recipes/{path.name}\n")
    assert wanted.name == path.stem
    assert wanted.model in (DENOISERS if wanted.kind == "prior" else NETWORKS)
    assert wanted.schedule in SCHEDULES
    assert wanted.train[1] < wanted.validate[0] <= wanted.validate[1] < "2006", "test years unseen"


@pytest.mark.parametrize("path", TUNING, ids=lambda p: p.stem)
def test_shipped_recipes_of_fine_tuning_are_sound(path):
    """They open with their command, take the parent's architecture, and see no test year."""
    first = path.read_text().splitlines()[0]
    assert first == f"# gapzoo finetune unet_small.speedy-t21-v2 recipes/finetune/{path.name}"
    wanted = recipe.load(path)
    parent = recipe.Recipe(model="mixture_small", max_steps=1, precision="fp32")
    found = recipe.inherit(wanted, parent)
    assert found.name == f"mixture_small.{wanted.name}" and found.precision == "fp32"
    assert found.start and found.train == wanted.train
    assert wanted.train[1] < wanted.validate[0] <= wanted.validate[1] < "2006"


def test_changes_are_typed(write):
    path = write("name: a\nmax_steps: 10\nmodel_options: {widths: [8]}\n")
    changes = ["batch_size=4", "learning_rate=1e-2", "model_options.blocks=[1]", "max_minutes=2"]
    found = recipe.load(path, [*changes, "variables=[temperature]", "notes=1979"])
    assert (found.batch_size, found.learning_rate, found.max_minutes) == (4, 1e-2, 2.0)
    assert found.model_options == {"widths": [8], "blocks": [1]}
    assert found.variables == ["temperature"] and found.notes == "1979"


def test_a_base_is_changed_by_what_names_it(write):
    write("max_steps: 10\nbatch_size: 2\nhours: [6, 12]\nmodel: unet_base\n", "root.yaml")
    write("base: root.yaml\nbatch_size: 3\nhours: [24]\n", "middle.yaml")
    path = write("base: ../middle.yaml\nname: leaf\n", "sub/leaf.yaml")
    found = recipe.load(path, ["seed=5"])
    assert (found.name, found.model, found.batch_size) == ("leaf", "unet_base", 3)
    assert (found.max_steps, found.hours, found.seed) == (10, [24], 5)


def test_what_the_trainer_takes_may_stand_together(write):
    """In a recipe, its base or a change; a later one wins, key by key."""
    write("max_steps: 1\ntrainer: {devices: 4, strategy: fsdp, accelerator: cpu}\n", "root.yaml")
    path = write("base: root.yaml\ntrainer: {devices: 2}\nnum_nodes: 3\n")
    found = recipe.load(path, ["trainer.strategy=ddp"])
    assert (found.devices, found.num_nodes, found.strategy) == (2, 3, "ddp")
    assert found.accelerator == "cpu" and "trainer" not in recipe.dump(found)


def test_what_is_written_out_reads_as_the_same(write):
    first = recipe.load(write("max_minutes: 3\ntrain: [1979-01-01, 1980-12-31]\n"))
    assert recipe.load(write(recipe.dump(first), "again.yaml")) == first
    assert len(recipe.dump(first).splitlines()) > len(vars(first)), "every key is written out"


@pytest.mark.parametrize(
    ("text", "changes", "parts"),
    [
        ("learning_rat: 1\nmax_steps: 1", [], ["r.yaml", "'learning_rat'", "'learning_rate'?"]),
        ("max_steps: 1", ["batchsize=3"], ["'batchsize'", "'batch_size'?"]),
        ("max_steps: many", [], ["r.yaml", "'max_steps'", "many", "Integer"]),
        ("max_steps: 1", ["batch_size=big"], ["r.yaml", "'batch_size'", "big", "Integer"]),
        ("max_steps: 1", ["batch_size"], ["'batch_size' is no change", "key=value"]),
        ("max_steps: 1", ["hours=[6,noon]"], ["r.yaml", "'hours[1]'", "noon"]),
        ("max_steps: 1", ["hours=[6,"], ["hours=[6,"]),
        ("name: x", [], ["recipe 'x'", "max_steps or max_minutes"]),
        ("max_steps: 1\nkind: priors", [], ["kind 'priors'", "prior", "forecaster"]),
        ("max_steps: 1\ncovariance: parents", [], ["covariance 'parents'", "fit", "parent"]),
        ("max_steps: 1\ncovariance: parent", [], ["'covariance: parent' needs a checkpoint"]),
        ("max_steps: 1\nfreeze: [a]", [], ["'freeze' needs a checkpoint", "'start'"]),
        ("max_steps: 1\nlora_rank: -1", [], ["lora_rank is -1"]),
        (
            "max_steps: 1\nlora_rank: 2\nstart: x\nweights: new",
            [],
            ["'lora_rank' needs 'weights: parent'"],
        ),
        ("max_steps: 0", [], ["max_steps is 0", "positive"]),
        ("max_steps: 1", ["devices=0"], ["devices is 0", "positive"]),
        ("max_steps: 1", ["cond_dropout=1.5"], ["cond_dropout is 1.5"]),
        ("max_steps: 1\ntrain: [1979-01-01]", [], ["'train' needs a first and a last day"]),
        ("base: r.yaml", [], ["r.yaml is its own base"]),
        ("base: gone.yaml", [], ["gone.yaml cannot be read"]),
        ("max_steps: 1\ntrainer: {device: 2}", [], ["'trainer.device'", "'devices'?"]),
        ("max_steps: 1", ["trainer.strateg=ddp"], ["'trainer.strateg'", "'strategy'?"]),
        ("max_steps: 1\ntrainer: 2", [], ["r.yaml", "'trainer' is 2", "devices"]),
        ("devices: 1\ntrainer: {devices: 2}", [], ["'devices' is there alone and under"]),
        ("max_steps: 1\ntrainer: {devices: two}", [], ["'devices'", "two", "Integer"]),
        ("- 1\n- 2", [], ["r.yaml must be 'key: value' lines"]),
        ("", [], ["max_steps or max_minutes"]),
        ("name: [unclosed", [], ["r.yaml cannot be read"]),
        ("a b: c: d", [], ["r.yaml cannot be read"]),
        ("name: ${nowhere}\nmax_steps: 1", [], ["r.yaml", "nowhere"]),
        ("model_options: 3\nmax_steps: 1", [], ["r.yaml", "model_options"]),
    ],
)
def test_mistakes_are_named_in_one_line(write, text, changes, parts):
    with expect(GapzooError, *parts) as caught:
        recipe.load(write(text), changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "instead"),
    [
        ("start=", "start=VALUE, start=null for none"),
        ("max_minutes=", "max_minutes=VALUE, max_minutes=null for none"),
        ("freeze= ", "freeze=VALUE, freeze=null for none"),
        ("batch_size=", "a value, such as batch_size=32"),
        ("hours=", "a value, such as hours=[6,12,18,24]"),
        (
            "trainer.strategy=",
            "a value, such as trainer.strategy=auto, or 'trainer.strategy=\"\"' for an empty text",
        ),
        ("model_options.widths=", "model_options.widths=VALUE"),
    ],
)
def test_a_change_to_nothing_is_told_what_to_write(write, change, instead):
    path = write("max_steps: 1\n")
    with expect(GapzooError, f"'{change}' has nothing after '='; write {instead}, or leave it out"):
        recipe.load(path, ["seed=1", change])
    if "such as " in instead:
        recipe.load(path, [instead.removeprefix("a value, such as ").split(", or ")[0]])
    with expect(GapzooError, f"'{change}' has nothing after '='"):
        recipe.read(path, [change])


KEYS = [f.name for f in dataclasses.fields(recipe.Recipe) if f.name != "max_steps"]


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_key_is_none_or_refused_by_name(write, key):
    """In a file as by a change; none is as if the key were not there, where that is empty."""
    plain = recipe.load(write("max_steps: 1\n", "plain.yaml"))
    default, path = getattr(plain, key), write(f"max_steps: 1\n{key}:\n")
    for empty in (
        lambda: recipe.load(path),
        lambda: recipe.load(path.parent / "plain.yaml", [f"{key}=null"]),
    ):
        if default in (None, "", [], {}):
            assert empty() == plain
        else:
            with expect(GapzooError, f"'{key}' is empty (null)", f"{key}: {default}", "leave"):
                empty()


def test_none_takes_a_value_of_the_base_away(write):
    write(
        "max_steps: 1\nmodel_options: {widths: [8]}\nstart: unet_small.a\nlora_rank: 2\n", "a.yaml"
    )
    path = write("base: a.yaml\nlora_rank: 0\n")
    found = recipe.load(path, ["start=null", "model_options=null"])
    assert (found.start, found.model_options) == ("", {})
    assert recipe.load(write("base: a.yaml\nlora_rank: 0\nstart:\n", "b.yaml")).start == ""


def test_files_that_are_none(tmp_path):
    with expect(GapzooError, "none.yaml cannot be read"):
        recipe.load(tmp_path / "none.yaml")
    with expect(GapzooError, "cannot be read"):
        recipe.load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80name")
    with expect(GapzooError, "binary.yaml cannot be read"):
        recipe.load(tmp_path / "binary.yaml")
