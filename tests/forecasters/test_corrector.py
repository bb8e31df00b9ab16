"""The network after the matrices: what is nonlinear and near is found, and nothing is invented."""

import numpy as np
import pandas as pd
import pytest
import torch
from worlds import expect, flat_world

from gapzoo.core import GapzooError
from gapzoo.forecasters.corrector import Corrector
from gapzoo.training.corrector import Plan, Sample, new_corrector, train_corrector

TIMES = pd.DatetimeIndex(["1980-03-01", "1980-09-01"])
PLAN = Plan(steps=600, width=24)


@pytest.fixture(scope="module")
def world():
    return flat_world(2, 6, 12)


def samples(world, known=True, seed=0):
    """Truths that lack 0.3 |change of the western neighbour|, which no matrix knows."""
    g = torch.Generator().manual_seed(seed)
    forecast, start, flow = (torch.randn(200, *world.shape, generator=g) for _ in range(3))
    wrong = 0.3 * ((forecast - start).roll(1, -1).abs() - 1.1)
    if not known:
        wrong = 0.3 * torch.randn(wrong.shape, generator=g)
    times = TIMES[np.arange(200) % 2]
    forcing = np.zeros((200, 1, *world.grid.shape), np.float32)

    def read(rows):
        fields = (forecast[rows], start[rows], flow[rows], (forecast + wrong)[rows])
        return Sample(*fields, times[rows], forcing[rows])

    return read


def error(corrector, sample):
    given = sample.forecast, sample.start, sample.flow, sample.times, sample.forcing
    before, after = (f - sample.truth for f in (sample.forecast, corrector(*given)))
    return float(after.square().mean() / before.square().mean())


def trained(world, read, plan=PLAN):
    done = []
    rows = np.arange(160)
    found = train_corrector(new_corrector(world, plan), read, rows, plan, done.append)
    assert sum(done) == plan.steps
    return found


def test_what_neighbours_tell_is_learned(world):
    read = samples(world)
    assert error(new_corrector(world, PLAN), read(np.arange(9))) == 1.0
    assert error(trained(world, read), read(np.arange(160, 200))) < 0.25


def test_noise_is_left_as_it_is(world):
    read = samples(world, known=False)
    left = error(trained(world, read, Plan(steps=40, width=24)), read(np.arange(160, 200)))
    assert 0.95 < left < 1.1


def test_the_same_seed_gives_the_same_network(world):
    read, short = samples(world), Plan(steps=3, width=8)
    one, two, other = (
        trained(world, read, plan).to_tensors("a")
        for plan in (short, short, Plan(steps=3, width=8, seed=1))
    )
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["a.stem.weight"], other["a.stem.weight"])


def test_it_turns_with_the_globe(world):
    """With a condition that is alike everywhere; so do shifts across the date line."""
    sample = samples(world)(np.arange(2))
    corrector = trained(world, samples(world), Plan(steps=30, width=8))
    given = sample.forecast, sample.start, sample.flow
    found = corrector(*given, sample.times, None)
    turned = corrector(*(z.roll(5, -1) for z in given), sample.times, None)
    torch.testing.assert_close(turned, found.roll(5, -1), rtol=0, atol=0.02)  # bfloat16 inside


def test_members_do_not_depend_on_their_batch(world):
    sample = samples(world)(np.arange(4))
    corrector = trained(world, samples(world), Plan(steps=30, width=8))
    whole = corrector(sample.forecast, sample.start, sample.flow, sample.times, sample.forcing)
    one = slice(2, 3)
    alone = corrector(
        sample.forecast[one], sample.start[one], sample.flow[one], sample.times[one], None
    )
    torch.testing.assert_close(alone, whole[one], rtol=0, atol=0.02)


def test_a_checkpoint_keeps_it_whole_and_refuses_other_channels(world):
    corrector = trained(world, samples(world), Plan(steps=3, width=8))
    tensors = corrector.to_tensors("corrector24-1") | {"corrector24-10.odd": torch.ones(1)}
    kept = Corrector.from_tensors(tensors, "corrector24-1", world)
    sample = samples(world)(np.arange(4))
    given = sample.forecast, sample.start, sample.flow, sample.times, sample.forcing
    assert torch.equal(kept(*given), corrector(*given))
    assert Corrector.from_tensors(tensors, "corrector6-1", world) is None
    with expect(GapzooError, "a corrector of 2 channels, where flat has 3"):
        Corrector.from_tensors(tensors, "corrector24-1", flat_world(3, 6, 12))


def test_a_loss_that_is_not_finite_is_told(world):
    read = samples(world)

    def broken(rows):
        sample = read(rows)
        sample.truth[0] = torch.nan
        return sample

    with expect(GapzooError, "a corrector's loss is nan at step 1"):
        trained(world, broken, Plan(steps=2, width=8))
