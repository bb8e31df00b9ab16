"""Two processes learn what one learns from the whole batch: same losses, same weights."""

import csv
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from models import recipe_text, toy

from gapzoo import checkpoint, cli
from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS
from gapzoo.diffusion import SCHEDULES, DenoisingLoss, PreconditionedDenoiser
from gapzoo.training.devices import shard, strategy_of
from gapzoo.training.optimise import drop_condition, generator_for

TOLERANCE = 2e-5
"""Relative, of losses in float32: sums are taken in another order."""
MOVED = {"adamw": 1e-4, "muon": 1e-3}
"""Of weights, after six steps of size 1e-3; Muon makes orthogonal in bfloat16, directions of no
gradient too."""
DDP = ("devices=2", "strategy=ddp")
GAPZOO = (sys.executable, "-m", "gapzoo.cli")
Losses = dict[tuple[str, str], float]
MIXTURE = "{patch: 2, size: 16, depth: 2, heads: 2, width: 8, experts: 3}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy(tmp_path_factory.mktemp("data") / "toy.zarr")


def train(folder: Path, text: str, *changes: str, processes: int = 1) -> Losses:
    """Train by the command line in forked processes, set up as torchrun does; losses by name."""
    folder.mkdir()
    recipe = folder / "unet_small.toy.yaml"
    recipe.write_text(text)
    places = ["--run", folder / "run", "--output", folder / "made"]
    command = [str(c) for c in ["train", recipe, *changes, *places]]
    fork, port = multiprocessing.get_context("fork"), free_port()
    parts = [
        fork.Process(target=_process, args=(command, rank, processes, port))
        for rank in range(processes)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join(1800)
    assert [part.exitcode for part in parts] == [0] * processes
    return losses(folder / "run")


def losses(run: Path) -> Losses:
    with (run / "metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if "loss" in r["name"]]
    return {(r["step"], r["name"]): float(r["value"]) for r in rows}


def _process(command: list[str], rank: int, processes: int, port: int) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": processes}
    numbers |= {"LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
    if processes > 1:
        os.environ.update({k: str(v) for k, v in numbers.items()})
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"})
    rank_zero_only.rank = rank
    sys.exit(cli.main(command))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def text(archive, **changes) -> str:
    values = {"precision": "fp32", "log_every": 1, "cond_dropout": 0.4, "max_steps": 6}
    return recipe_text(archive.path, **(values | changes))


def equal(first: Path, second: Path, tolerance: float) -> None:
    """Weights and their running average, of the last step, in units of how far training went."""
    left, right = (
        torch.load(f / "run" / "last.ckpt", weights_only=True)["state_dict"]
        for f in (first, second)
    )
    names = [n for n in left if n.startswith(("denoiser.", "averaged."))]
    assert left.keys() == right.keys() and any(n.startswith("averaged.") for n in names)
    assert any(not torch.equal(left[n], left[n.replace("averaged.", "denoiser.")]) for n in names)
    for name in names:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_processes_equal_one_with_the_whole_batch(archive, tmp_path, optimizer):
    """Losses of training and validation (that of the average), weights and their average."""
    wanted = text(archive, optimizer=optimizer)
    whole = train(tmp_path / "one", wanted)
    parts = train(tmp_path / "two", wanted, *DDP, processes=2)
    assert len({step for step, _ in whole}) >= 6 and parts.keys() == whole.keys()
    assert {"train/loss", "val/loss"} <= {name for _, name in whole}
    for key, loss in whole.items():
        assert parts[key] == pytest.approx(loss, rel=TOLERANCE), key
    equal(tmp_path / "one", tmp_path / "two", MOVED[optimizer])


@pytest.mark.slow
def test_experts_that_a_process_does_not_meet_hold_nobody_up(archive, tmp_path):
    """Their auxiliary loss alone is of a process's own tokens."""
    wanted = text(archive, model="mixture_small", model_options=MIXTURE)
    whole = train(tmp_path / "one", wanted)
    parts = train(tmp_path / "two", wanted, *DDP, processes=2)
    for key, loss in whole.items():
        assert parts[key] == pytest.approx(loss, rel=2e-2), key


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_spread_weights_equal_whole_ones(archive, tmp_path, optimizer):
    """Strategy fsdp, on two processes of the CPU."""
    wanted = text(archive, optimizer=optimizer)
    whole = train(tmp_path / "one", wanted)
    parts = train(tmp_path / "two", wanted, "devices=2", "strategy=fsdp", processes=2)
    for key, loss in whole.items():
        assert parts[key] == pytest.approx(loss, rel=TOLERANCE), key
    equal(tmp_path / "one", tmp_path / "two", MOVED[optimizer])


@pytest.mark.slow
def test_spread_weights_go_on_after_a_kill(archive, tmp_path):
    """As a user starts it: two processes from the recipe's ``trainer``, killed, resumed."""
    whole = train(tmp_path / "one", text(archive, max_steps=12))
    recipe, run = tmp_path / "unet_small.toy.yaml", tmp_path / "run"
    lines = text(archive, max_steps=12, checkpoint_minutes=0).replace("accelerator: cpu\n", "")
    recipe.write_text(lines + "trainer: {devices: 2, strategy: fsdp, accelerator: cpu}\n")
    places = ["--run", run, "--output", tmp_path / "made"]
    killed = subprocess.Popen([*GAPZOO, "train", recipe, *places], start_new_session=True)
    while killed.poll() is None and not (run / "last.ckpt").exists():
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] < 12
    assert not (tmp_path / "made").exists()
    subprocess.run([*GAPZOO, "train", "--resume", run, *places[2:]], check=True, timeout=1800)
    parts = losses(run)
    assert parts.keys() == whole.keys()
    for key, loss in whole.items():
        assert parts[key] == pytest.approx(loss, rel=TOLERANCE), key
    assert checkpoint.load(tmp_path / "made").details["training"]["steps"] == 12


def test_noise_belongs_to_the_rows_of_the_whole_batch():
    """The parts of two and of four processes together are what one would have drawn."""
    x = torch.randn(8, 1, 4, 8, generator=torch.Generator().manual_seed(0))
    network = DENOISERS.build("unet_small", channels=1, widths=(8,), blocks=(1,), attention=0)
    denoiser, loss = PreconditionedDenoiser(network, SCHEDULES.build("edm")), DenoisingLoss()
    whole = loss(denoiser, x, generator_for(0, "step"))
    for size in (2, 4):
        for rank in range(size):
            value = loss(denoiser, x[rank::size], generator_for(0, "step"), (rank, size))
            assert torch.equal(value.ratio, whole.ratio[rank::size])
            torch.testing.assert_close(value.per_sample, whole.per_sample[rank::size])
    cond = torch.ones(8, 1, 1, 1)
    kept = drop_condition(cond, 0.5, generator_for(1, "step"))
    half = drop_condition(cond[1::2], 0.5, generator_for(1, "step"), (1, 2))
    assert torch.equal(half, kept[1::2]) and kept.any() and not kept.all()


def test_what_cannot_be_spread_is_refused():
    levels = DENOISERS.build("unet_levels_small", channels=1, widths=(8,), blocks=(1,))
    with pytest.raises(GapzooError, match="experts by noise level; take 'ddp'"):
        shard(levels, None)
    with pytest.raises(GapzooError, match=r"no strategy 'dpp'; did you mean 'ddp'\?"):
        strategy_of("dpp", 2, 1)
    with pytest.raises(GapzooError, match="'fsdp' needs the number of devices, not 'auto'"):
        strategy_of("fsdp", "auto", 1)
    assert strategy_of("ddp", 2, 1) == "ddp"
