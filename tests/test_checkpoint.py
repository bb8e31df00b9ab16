"""Checkpoints: identical outputs after reloading; damage and forgery refused by name."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from models import saved, toy, toy_forecaster, toy_prior
from safetensors.torch import load_file, save_file
from worlds import expect

from gapzoo import checkpoint
from gapzoo.card import card
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.tasks import Sampling

TIME = pd.Timestamp("1980-03-01")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy(tmp_path_factory.mktemp("data") / "toy.zarr")


@pytest.fixture(scope="module")
def prior(archive):
    return toy_prior(archive)


@pytest.fixture(scope="module")
def folder(prior, tmp_path_factory):
    return saved(prior, tmp_path_factory.mktemp("checkpoints") / "unet_small.toy")


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def states(shape, seed=0):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_others_may_read_all_files_of_a_checkpoint(folder):
    """As far as the user's umask lets them, like any file."""
    beside = folder.parent / "any"
    beside.write_text("")
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert set(modes.values()) == {beside.stat().st_mode}, modes


@pytest.mark.parametrize("wiener", [False, True])
def test_a_prior_reloads_to_identical_outputs(archive, tmp_path, wiener):
    """In full precision; around a covariance too, once it is what a checkpoint keeps."""
    prior = checkpoint.load(saved(toy_prior(archive, wiener=wiener), tmp_path / "once"))
    loaded = checkpoint.load(saved(prior, tmp_path / "twice"))
    world = loaded.world
    assert (loaded.covariance is not None) == wiener
    cond = world.condition(pd.DatetimeIndex([TIME] * 2))
    for t in (0.1, 0.6, 1.0):
        level = torch.tensor(t)
        first, second = (
            c.denoiser(states(world.shape), level, cond=cond).mean for c in (prior, loaded)
        )
        assert torch.equal(first, second)
    draw = [
        Sampling(steps=2).draw(c.prior, world.shape, MemberGenerator(1, 2)) for c in (prior, loaded)
    ]
    assert torch.equal(*draw)
    assert not loaded.network.training
    assert not any(p.requires_grad for p in loaded.network.parameters())


def test_a_forecaster_reloads_to_identical_outputs_and_errors(archive, tmp_path):
    made = toy_forecaster(archive)
    loaded = checkpoint.load(saved(made, tmp_path / "f"))
    x = states(made.world.shape)
    first, second = (c.forecaster.step(x, TIME, 48) for c in (made, loaded))
    assert torch.equal(first, second) and not torch.equal(first, x)
    assert torch.equal(loaded.error(24).eigenvalues, made.error(24).eigenvalues)
    with expect(GapzooError, "no error covariance at 6 h", "error24"):
        loaded.error(6)
    with expect(GapzooError, "'convcast_small.toy' is a forecaster, not a prior"):
        loaded.prior  # noqa: B018


def test_a_prior_is_no_forecaster(folder):
    with expect(GapzooError, "'unet_small.toy' is a prior, not a forecaster"):
        checkpoint.load(folder).forecaster  # noqa: B018


def test_the_world_survives_to_the_bit(prior, folder):
    loaded, world = checkpoint.load(folder).world, prior.world
    assert loaded.grid == world.grid and loaded.channels == world.channels
    for field in dataclasses.fields(world):
        old, new = getattr(world, field.name), getattr(loaded, field.name)
        if isinstance(old, np.ndarray):
            assert np.array_equal(new, old.astype(np.float32)), field.name
    assert torch.equal(loaded.std, world.std)
    times = pd.DatetimeIndex([TIME])
    assert torch.equal(loaded.mean(times), world.mean(times))
    assert torch.equal(loaded.condition(times), world.condition(times))
    assert loaded.forcing_channels == world.forcing_channels and loaded.hours == 24
    assert loaded.details["data_hash"] == world.details["data_hash"]


def test_half_precision_rounds_weights_once_and_spares_the_world(prior, tmp_path):
    first = checkpoint.save(tmp_path / "a", prior, "")
    loaded = checkpoint.load(first)
    for old, new in zip(prior.network.parameters(), loaded.network.parameters(), strict=True):
        assert torch.equal(old.bfloat16().float(), new) and new.dtype == torch.float32
    assert torch.equal(loaded.world.std, prior.world.std)
    again = checkpoint.save(tmp_path / "b", loaded, "")
    assert (again / "weights.safetensors").read_bytes() == (
        first / "weights.safetensors"
    ).read_bytes()


def test_a_folder_holds_all_that_is_promised(folder, prior):
    names = {"weights.safetensors", "checkpoint.json", "recipe.yaml", "card.md"}
    assert {p.name for p in folder.iterdir()} == names
    assert set(json.loads((folder / "checkpoint.json").read_text())["files"]) == {
        "weights.safetensors"
    }
    card = (folder / "card.md").read_text()
    body = json.loads((folder / "checkpoint.json").read_text())
    data = prior.world.details["data_hash"]
    for wanted in ("# unet_small.toy", "A toy.", body["weights_sha256"], data):
        assert wanted in card
    assert body["world"]["units"] == ["K", "K", "Pa"]
    assert body["weights_sha256"] == checkpoint.sha256(folder / "weights.safetensors")


def test_large_weights_are_sharded_and_come_back(prior, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 20_000)
    made = saved(prior, tmp_path / "sharded")
    shards = sorted(made.glob("weights*.safetensors"))
    assert len(shards) > 2 and all(s.stat().st_size < 50_000 for s in shards)
    whole, parts = checkpoint.load(folder), checkpoint.load(made)
    left, right = whole.network.state_dict(), parts.network.state_dict()
    assert [k for k in left if not torch.equal(left[k], right[k])] == []
    assert torch.equal(whole.world.std, parts.world.std) and parts.hash != whole.hash
    monkeypatch.undo()
    saved(parts, made)
    assert [p.name for p in made.glob("*.safetensors")] == ["weights.safetensors"]
    assert checkpoint.load(made).hash == whole.hash


def test_weights_whose_common_hash_is_another_are_refused(copy):
    body = json.loads((copy / "checkpoint.json").read_text())
    (copy / "checkpoint.json").write_text(json.dumps({**body, "weights_sha256": "0" * 64}))
    with expect(GapzooError, "copy", "the weights are not those described"):
        checkpoint.load(copy)


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The hub's own cache, as huggingface_hub lays it out, and no network."""
    from huggingface_hub import constants

    root = tmp_path / "cache" / "models--acme--toy"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    snapshot = root / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folder, snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_a_checkpoint_on_the_hub_is_loaded_from_its_cache(hub, folder):
    for address in ("hf://acme/toy", "hf://acme/toy@main", f"hf://acme/toy@{hub.name}"):
        assert checkpoint.load(address).hash == checkpoint.load(folder).hash


def test_what_is_wrong_on_the_hub_is_said_in_one_line(hub, monkeypatch):
    for address, part in {
        "hf://acme": "hf://OWNER/NAME",
        "hf://acme/toy/../x": "hf://OWNER/NAME",
        "hf://acme/other": "'hf://acme/other' cannot be fetched",
        "hf://acme/toy@v2": "'hf://acme/toy@v2' cannot be fetched",
    }.items():
        with expect(GapzooError, part) as caught:
            checkpoint.load(address)
        assert "\n" not in str(caught.value)
    (hub / "weights.safetensors").write_bytes(b"cut")
    with expect(GapzooError, "weights.safetensors is missing, damaged"):
        checkpoint.load("hf://acme/toy")
    (hub / "checkpoint.json").unlink()
    with expect(GapzooError, "holds no checkpoint.json"):
        checkpoint.load("hf://acme/toy")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with expect(GapzooError, "pip install gapzoo[hub]"):
        checkpoint.load("hf://acme/toy")


def test_the_card_tells_all_that_is_known(prior):
    details = {**prior.details, "parent": "p.v1 (SHA-256 ab)", "weights_sha256": "cd"}
    details["training"] = {"parameters": "1,000", "device": "CPU", "minutes": 3.0, "samples": "64"}
    details["scores"] = {"validation loss": "0.5"}
    world = {"name": "toy", "latitude": [0] * 4, "longitude": [0] * 8, "channels": ["u"]}
    world |= {"level_kind": "sigma", "forcing_channels": [], "details": {"data_hash": "ef"}}
    lines = card({**details, "name": "x.y", "kind": "prior", "world": world}).splitlines()
    for line in (
        "# x.y",
        "| architecture | unet_small, 1,000 parameters |",
        "| world | toy, 4 x 8 |",
        "| data hash | ef |",
        "| parent | p.v1 (SHA-256 ab) |",
        "| minutes | 3.0 |",
        "| device | CPU |",
        "| validation loss | 0.5 |",
        'gapzoo.load("x.y").prior',
    ):
        assert line in lines


def test_it_is_found_by_name(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "FOLDERS", (folder.parent,))
    assert checkpoint.load("unet_small.toy").hash == checkpoint.load(folder).hash
    with expect(GapzooError, "no checkpoint 'unet_smal.toy'", "unet_small.toy"):
        checkpoint.load("unet_smal.toy")


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "missing", "other"])
def test_damaged_weights_are_refused(copy, damage):
    weights = copy / "weights.safetensors"
    raw = bytearray(weights.read_bytes())
    if damage == "truncated":
        weights.write_bytes(raw[: len(raw) // 2])
    elif damage == "one bit":
        raw[len(raw) // 2] ^= 1
        weights.write_bytes(raw)
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "missing":
        weights.unlink()
    else:
        save_file({"network.a": torch.ones(1)}, weights)
    with expect(GapzooError, "weights.safetensors is missing, damaged or not the one described"):
        checkpoint.load(copy)


def rewrite(folder: Path, change) -> None:
    """Change the description, and keep the weights' hash right."""
    body = json.loads((folder / "checkpoint.json").read_text())
    change(body)
    if isinstance(body.get("files"), dict):
        digest = checkpoint.sha256(folder / "weights.safetensors")
        body["files"]["weights.safetensors"] = body["weights_sha256"] = digest
    (folder / "checkpoint.json").write_text(json.dumps(body))


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", '"name"', "null", '{"format": "other-2"}', "{}", "\x00\x01"]
)
def test_descriptions_that_are_none_are_refused(copy, text):
    (copy / "checkpoint.json").write_text(text)
    with expect(GapzooError, "copy"):
        checkpoint.load(copy)


@pytest.mark.parametrize("key", ["name", "kind", "model", "arguments", "world", "files"])
def test_a_description_without_a_key_is_refused(copy, key):
    rewrite(copy, lambda body: body.pop(key))
    with expect(GapzooError, "copy"):
        checkpoint.load(copy)


def test_files_outside_the_folder_are_never_read(copy):
    outside = copy.parent / "outside.safetensors"
    save_file({"a": torch.ones(1)}, outside)
    digest = checkpoint.sha256(outside)
    rewrite(copy, lambda body: body["files"].update({"../outside.safetensors": digest}))
    with expect(GapzooError, "copy", "outside.safetensors is missing"):
        checkpoint.load(copy)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda b: b.update(model="unet_smal"), ["'unet_smal'", "unet_small"]),
        (lambda b: b.update(kind="sampler"), ["copy", "kind 'sampler'", "prior or forecaster"]),
        (lambda b: b["arguments"].update(wings=2), ["'wings'"]),
        (lambda b: b["arguments"].update(widths=[32]), ["copy is not whole", "size mismatch"]),
        (lambda b: b["arguments"].update(blocks=[2]), ["copy is not whole", "Missing key"]),
        (lambda b: b["world"].update(latitude=[0.0] * 4), ["latitude must be monotonic"]),
        (
            lambda b: b["world"]["channels"].pop(),
            ["world of (2, 4, 8) is described", "(3, 4, 8)"],
        ),
        (lambda b: b["world"].update(level_kind="eta"), ["level kind 'eta'"]),
    ],
)
def test_descriptions_that_do_not_fit_the_weights_are_refused(copy, change, parts):
    rewrite(copy, change)
    with expect(GapzooError, *parts):
        checkpoint.load(copy)


def test_weights_that_lack_an_array_are_refused(copy):
    tensors = load_file(copy / "weights.safetensors")
    tensors.pop("world.mean")
    save_file(tensors, copy / "weights.safetensors")
    rewrite(copy, lambda body: None)
    with expect(GapzooError, "copy is not whole", "mean"):
        checkpoint.load(copy)


def test_a_pickle_is_never_opened(copy):
    """A file that would run code were it unpickled, with the right hash."""
    marker = copy / "ran"

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (marker,))

    torch.save({"a": Bomb()}, copy / "weights.safetensors")
    rewrite(copy, lambda body: None)
    with expect(GapzooError, "copy is not whole"):
        checkpoint.load(copy)
    assert not marker.exists()


def test_saving_leaves_no_parts_and_replaces_whole(prior, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    other = dataclasses.replace(prior, name="renamed", details=dict(prior.details))
    saved(other, copy)
    assert checkpoint.load(copy).name == "renamed"
    assert not list(copy.glob("*.part"))
