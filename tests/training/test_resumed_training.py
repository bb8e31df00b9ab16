"""A resumed run equals an uninterrupted one, bit for bit, in weights, optimiser and log."""

import csv
import os
import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS
from gapzoo.training import Optimisation, UNetDenoiser, train
from gapzoo.training.denoisers import ZooDenoiser

STEPS = 12
TINY = {
    "transformer_small": {"patch": 2, "size": 16, "depth": 2, "heads": 2, "width": 8, "drop": 0.1},
    "mixture_small": {"patch": 2, "size": 16, "depth": 2, "heads": 2, "width": 8, "experts": 3},
    "unet_levels_small": {"widths": (8,), "blocks": (1,), "attention": 0, "embedding": 16},
}
"""Smaller than they are registered, where that is known to work."""


class Kill(Callback):
    """Die after a step, as by a signal; or stop in good order."""

    def __init__(self, step: int, orderly: bool) -> None:
        self.step, self.orderly = step, orderly

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            if not self.orderly:
                raise RuntimeError("killed")
            trainer.should_stop = True


def module():
    return UNetDenoiser(
        channels=2,
        cond_channels=1,
        architecture={"widths": (16, 32), "blocks": (1, 1), "embedding": 32, "dropout": 0.1},
        optimisation=Optimisation(warmup=4, decay=0.9),
        cond_dropout=0.3,
        seed=7,
    )


def run(folder, data, quiet, **options):
    settings = {"max_steps": STEPS, "checkpoint_steps": 2, "validate_every": 3} | quiet | options
    return train(module(), data, folder, **settings)


def log(folder):
    with (folder / "metrics.csv").open() as file:
        rows = [tuple(row) for row in csv.reader(file)]
    assert len(rows) == len(set(rows))
    return {row for row in rows if row[1] != "run/samples_per_second"}


def tensors(tree, path=""):
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from tensors(value, f"{path}/{key}")
    elif isinstance(tree, list | tuple):
        for key, value in enumerate(tree):
            yield from tensors(value, f"{path}/{key}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, new_data, quiet):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder, new_data(), quiet)
    return folder


@pytest.mark.parametrize(
    ("kill", "orderly"), [(3, False), (5, False), (7, False), (10, False), (5, True), (8, True)]
)
def test_resumed_equals_uninterrupted(tmp_path, new_data, quiet, whole, kill, orderly):
    folder, killer = tmp_path / "run", [Kill(kill, orderly)]
    if orderly:
        run(folder, new_data(), quiet, callbacks=killer)
    else:
        with pytest.raises(RuntimeError, match="killed"):
            run(folder, new_data(), quiet, callbacks=killer)
    run(folder, new_data(), quiet, resume=True)
    first, second = (torch.load(f / "last.ckpt", weights_only=True) for f in (whole, folder))
    assert second["global_step"] == STEPS
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        left, right = dict(tensors(first[part])), dict(tensors(second[part]))
        assert left.keys() == right.keys()
        assert [k for k in left if not torch.equal(left[k], right[k])] == []
    validations_at_the_stop = {row for row in log(folder) if orderly and row[0] == str(kill)}
    assert log(folder) - validations_at_the_stop == log(whole) - validations_at_the_stop


def test_a_run_that_is_told_to_end_says_so_and_goes_on(tmp_path, new_data, quiet, whole):
    class Tell(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as told:
        run(tmp_path / "run", new_data(), quiet, callbacks=[Tell()])
    assert told.value.code == 143
    run(tmp_path / "run", new_data(), quiet, resume=True)
    states = [torch.load(f / "last.ckpt", weights_only=True) for f in (whole, tmp_path / "run")]
    left, right = (dict(tensors(state["state_dict"])) for state in states)
    assert [k for k in left if not torch.equal(left[k], right[k])] == []


@pytest.mark.parametrize("name", [n for n in DENOISERS.names("*_small") if n != "unet_small"])
def test_every_registered_denoiser_resumes_to_the_bit(tmp_path, new_data, quiet, name):
    """Weights, their average and the optimiser, after a kill between two savings.

    In bfloat16 where the processor has it, else in float32, as training itself.
    """

    def go(folder, **options):
        module = ZooDenoiser(
            name,
            channels=2,
            cond_channels=1,
            architecture=TINY.get(name),
            optimisation=Optimisation(warmup=2, decay=0.9),
            cond_dropout=0.3,
        )
        settings = {"max_steps": 6, "checkpoint_steps": 2, "validate_every": 3} | quiet
        train(module, new_data(), folder, **(settings | options))

    go(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        go(tmp_path / "run", callbacks=[Kill(5, orderly=False)])
    go(tmp_path / "run", resume=True)
    first, second = (
        torch.load(tmp_path / f / "last.ckpt", weights_only=True) for f in ("whole", "run")
    )
    for part in ("state_dict", "optimizer_states"):
        left, right = dict(tensors(first[part])), dict(tensors(second[part]))
        assert left.keys() == right.keys()
        assert [k for k in left if not torch.equal(left[k], right[k])] == []


def test_a_checkpoint_is_never_half_written(whole):
    assert sorted(p.name for p in whole.iterdir() if "ckpt" in p.name or "writing" in p.name) == [
        "last.ckpt"
    ]


def test_nothing_is_overwritten_or_resumed_by_mistake(tmp_path, data, quiet, whole):
    with pytest.raises(GapzooError, match="nothing to resume"):
        run(tmp_path / "none", data, quiet, resume=True)
    with pytest.raises(GapzooError, match="exists; resume it"):
        run(whole, data, quiet)
    with pytest.raises(GapzooError, match="no budget"):
        run(tmp_path / "none", data, quiet, max_steps=None)
