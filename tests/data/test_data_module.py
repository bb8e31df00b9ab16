"""Batches are a function of (seed, step) alone; ranks share them; pairs stay within runs."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from worlds import NAMES, ToySource, expect, fill, toy_archive

from gapzoo.core import GapzooError
from gapzoo.data.archive import Archive
from gapzoo.data.held import HeldReader
from gapzoo.data.module import ArchiveDataModule, EpochSampler, Pairs, Reader, States, world_of

TRAIN, VALIDATE = ("1979-01-01", "1979-12-31"), ("1980-01-01", "1980-06-30")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("module") / "toy.zarr"
    toy_archive(path)
    return path


def data(path, **arguments):
    settings = {"train": TRAIN, "validate": VALIDATE, "batch_size": 8, "steps_per_epoch": 3}
    return ArchiveDataModule(str(path), **(settings | arguments))


def batches(module, epoch=0):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [module.on_after_batch_transfer(batch, 0) for batch in loader]


def equal(left, right):
    return all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("kind", ["states", "pairs"])
def test_batches_depend_on_seed_and_step_alone(path, kind):
    options = {"kind": kind, "hours": (24, 48)}
    first = [b for e in (0, 1) for b in batches(data(path, **options), e)]
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002  what the global streams hold must not matter
    module = data(path, **options)
    batches(module, 5)
    second = [b for e in (0, 1) for b in batches(module, e)]
    assert equal(first, second)
    assert equal(batches(data(path, **options), 1), first[3:]), "a resumed run starts at epoch 1"
    assert not equal(batches(data(path, seed=1, **options)), first[:3])


def test_the_length_of_an_epoch_changes_no_batch(path):
    six = batches(data(path, steps_per_epoch=6))
    three = [b for e in (0, 1) for b in batches(data(path), e)]
    assert equal(six, three)


def test_a_resumed_run_goes_on_within_its_epoch():
    whole = EpochSampler(100, 8, 4, 0)
    resumed = EpochSampler(100, 8, 4, 0, start=6)
    for epoch, skipped in ((1, 2), (2, 0)):
        whole.set_epoch(epoch)
        resumed.set_epoch(epoch)
        assert np.array_equal(np.stack(list(resumed)), np.stack(list(whole))[skipped:])


def test_a_pass_shows_every_sample_once():
    sampler = EpochSampler(rows=10, batch=4, steps=5, seed=3)
    numbers = np.concatenate(list(sampler))
    assert sorted(numbers[:10]) == list(range(10))
    assert sorted(numbers[10:]) == list(range(10, 20))
    assert numbers[:10].tolist() != (numbers[10:] - 10).tolist() and len(sampler) == 5


def test_later_passes_show_the_same_states_with_other_leads(path):
    pairs = data(path, kind="pairs", hours=(24, 48, 72)).dataset("train")
    rows = np.arange(len(pairs))
    first, second = pairs[rows], pairs[rows + len(pairs)]
    assert torch.equal(first["state"], second["state"])
    same = (first["hours"] == second["hours"]).float().mean().item()
    assert same == pytest.approx(1 / 3, abs=4 * (2 / 9 / len(pairs)) ** 0.5)


def test_two_ranks_together_make_the_batch():
    whole = EpochSampler(100, 8, 4, 0)
    halves = [EpochSampler(100, 8, 4, 0, rank, 2) for rank in (0, 1)]
    for epoch in (0, 3):
        for sampler in (whole, *halves):
            sampler.set_epoch(epoch)
        for all_rows, *parts in zip(whole, *halves, strict=True):
            assert [len(p) for p in parts] == [4, 4]
            assert np.stack(parts, 1).ravel().tolist() == all_rows.tolist()
    with expect(GapzooError, "batch size 8", "3 devices"):
        EpochSampler(100, 8, 4, 0, 0, 3)


@pytest.mark.parametrize("kind", ["states", "pairs"])
def test_the_ranks_of_a_trainer_share_a_batch(path, kind):
    """Each tensor of the whole batch is the two ranks' own, in turn."""
    parts = []
    for rank in (0, 1):
        module = data(path, kind=kind, hours=(24, 48))
        place = {"global_rank": rank, "world_size": 2, "global_step": 0}
        place["strategy"] = SimpleNamespace(root_device=torch.device("cpu"))
        module.trainer = type("Two", (), {**place, "accumulate_grad_batches": 1})()
        parts.append(batches(module))
    wholes = batches(data(path, kind=kind, hours=(24, 48)))
    for whole, even, odd in zip(wholes, *parts, strict=True):
        for name, value in whole.items():
            assert torch.equal(torch.stack([even[name], odd[name]], 1).flatten(0, 1), value), name


def test_lightning_hands_out_these_very_batches(path):
    """Two epochs of a real Trainer, which sets the epoch itself."""

    class Note(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight, self.seen = torch.nn.Parameter(torch.ones(1)), []

        def training_step(self, batch, index):
            self.seen.append(batch)
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    note = Note()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    lightning.Trainer(
        max_epochs=2, accelerator="cpu", enable_checkpointing=False,
        use_distributed_sampler=False, **quiet,
    ).fit(note, data(path))  # fmt: skip
    expected = [b for e in (0, 1) for b in batches(data(path), e)]
    assert equal(note.seen, expected)


def test_a_batch_holds_the_states_of_its_rows(path):
    archive = Archive(path)
    world = world_of(archive)
    batch = data(path).dataset("train")[np.array([5, 2])]
    states = torch.from_numpy(archive.read("state", np.array([5, 2])))
    times = archive.times[[5, 2]]
    assert torch.allclose(batch["state"], world.normalise(states, times), rtol=1e-4, atol=1e-5)
    anomaly = world.forcing_anomaly(archive.read("forcing", np.array([5, 2])), times)
    wanted = world.condition(times, anomaly)
    assert torch.allclose(batch["cond"], wanted, rtol=1e-4, atol=1e-5)
    assert batch.keys() == {"state", "cond"} and batch["cond"].shape[1] == world.cond_channels


def test_pairs_are_as_far_apart_as_they_say_and_stay_in_a_run(path):
    module = data(path, kind="pairs", hours=(24, 72), train=("1979-01-01", "1979-10-31"))
    pairs, archive = module.dataset("train"), module.archive
    start = pairs.positions
    assert start.max() + 3 == 303, "no target lies after the period"
    missing = sorted(set(range(304)) - set(start.tolist()))
    assert missing == [237, 238, 239, 301, 302, 303], "the joint lies after step 239"
    rows = np.arange(len(start))
    batch = pairs[rows]
    ahead = (batch["hours"] / 24).long().numpy()
    assert set(ahead.tolist()) == {1, 3} and abs((ahead == 1).mean() - 0.5) < 0.1
    assert (archive.runs[start] == archive.runs[start + ahead]).all()
    reader = Reader(archive, module.world)
    near = {"rtol": 1e-4, "atol": 2e-5}  # a unit in the last place of u's mean is 0.9e-5 spreads
    assert torch.allclose(batch["target"], reader.state(start + ahead), **near)
    assert torch.allclose(batch["state"], reader.state(start), **near)
    assert torch.allclose(batch["cond"], reader.condition(start), **near)


@pytest.fixture(scope="module")
def thrice(tmp_path_factory):
    """Three realisations of 240 days, a run each, without statistics."""
    path = tmp_path_factory.mktemp("thrice") / "thrice.zarr"
    fill(path, ToySource(end="1979-08-28", realisations=3))
    return path


def test_pairs_stay_in_the_period_of_each_realisation(path, thrice):
    """And in its run: no target lies after the period, nor in the next realisation."""
    world = world_of(Archive(path))
    periods = {"train": ("1979-01-01", "1979-06-29"), "validate": ("1979-06-30", "1979-08-28")}
    module = data(thrice, kind="pairs", hours=(24, 72), world=world, **periods)
    for period, first, last in (("train", 0, 179), ("validate", 180, 239)):
        starts = [np.arange(240 * n + first, 240 * n + last - 2) for n in range(3)]
        assert np.array_equal(module.dataset(period).positions, np.concatenate(starts))
    archive, batch = module.archive, module.dataset("train")[np.arange(530)]
    start = module.dataset("train").positions[np.arange(530) % 531]
    ahead = (batch["hours"] / 24).long().numpy()
    expected = Reader(archive, world).state(start + ahead)
    torch.testing.assert_close(batch["target"], expected, rtol=1e-4, atol=2e-5)


def test_states_of_several_realisations_are_held_as_they_are_read(path, thrice):
    archive, world = Archive(thrice), world_of(Archive(path))
    positions = archive.indices("1979-02-01", "1979-02-28")
    assert len(positions) == 84
    plain = States(Reader(archive, world), positions)
    held = States(HeldReader(archive, world, positions, torch.device("cpu")), positions)
    rows = np.array([0, 27, 28, 83, 40])
    assert equal([plain[rows]], [held[rows]])
    assert not torch.equal(plain[rows]["state"][0], plain[np.array([28])]["state"][0])


def test_an_archive_without_statistics_names_what_to_do(thrice):
    with expect(
        GapzooError, "thrice.zarr has no statistics", "build-data", "normalisation: parent"
    ):
        data(thrice)


def test_a_step_of_the_archive_is_its_own_under_a_world_of_another(path, tmp_path):
    """Daily states under a world of six-hourly ones: a pair a day apart is one step apart."""
    world = replace(world_of(Archive(path)), hours=6)
    module = data(path, kind="pairs", hours=(24,), world=world)
    pairs = module.dataset("train")
    assert pairs.ahead.tolist() == [1] and pairs[np.arange(3)]["hours"].tolist() == [24.0] * 3


def test_leads_that_the_archive_does_not_have_are_refused(path):
    for hours in ([12], [36], [0], [-24]):
        with expect(GapzooError, f"leads {hours} h", "multiple of 24 h"):
            data(path, kind="pairs", hours=hours).dataset("train")
    reader = Reader(Archive(path), world_of(Archive(path)))
    assert len(Pairs(reader, np.arange(5), [96])) == 1


def test_validation_is_the_same_every_time_and_spans_its_period(path):
    module = data(path, validation_samples=20)
    first, second = (list(module.val_dataloader()) for _ in range(2))
    assert equal(first, second)
    rows = np.concatenate([list(b) for b in module.val_dataloader().sampler])
    assert len(rows) == 20 and rows[0] == 0 and rows[-1] == 181
    assert np.ptp(np.diff(rows)) <= 1


def test_a_subset_of_variables_is_the_same_numbers(path):
    whole, part = data(path), data(path, variables=["surface_pressure", "temperature@0.2"])
    assert part.world.channels.labels == [NAMES[0], NAMES[2]], "in the archive's order"
    all_states = whole.dataset("train")[np.arange(3)]["state"]
    assert torch.equal(part.dataset("train")[np.arange(3)]["state"], all_states[:, [0, 2]])
    assert part.world.spread == pytest.approx(whole.world.spread[[0, 2]])
    assert part.world.diff_std == pytest.approx(whole.world.diff_std[[0, 2]])


def test_a_given_world_normalises_another_archive(path, tmp_path):
    """Fine-tuning: the parent's statistics, not the archive's own."""
    other = toy_archive(tmp_path / "other.zarr", noise=3.0, seed=5)
    world = copy.deepcopy(world_of(Archive(path)))
    module = data(other.path, world=world)
    state = module.dataset("train")[np.arange(365)]["state"]
    assert module.world is world and state.std() > 2.5


def test_what_does_not_fit_is_refused(path, tmp_path):
    with expect(GapzooError, "data kind 'state'", "'states' or 'pairs'"):
        data(path, kind="state")
    with expect(GapzooError, "'geopotential'"):
        data(path, variables=["geopotential"])
    with expect(GapzooError, "no step from 2001-01-01 to 2002-01-01", "covers 1979-01-01"):
        data(path, train=("2001-01-01", "2002-01-01")).dataset("train")
    wide = toy_archive(tmp_path / "wide.zarr", width=16, end="1979-12-31")
    with expect(GapzooError, "wide.zarr", "(4, 16)", "toy", "(4, 8)"):
        data(wide.path, world=world_of(Archive(path))).dataset("train")
    fewer = toy_archive(tmp_path / "fewer.zarr", names=NAMES[1:], end="1979-12-31")
    with expect(GapzooError, f"no channel '{NAMES[0]}'"):
        data(fewer.path, world=world_of(Archive(path))).dataset("train")


def test_an_archive_without_static_fields_conditions_on_zeros(tmp_path, monkeypatch):
    spec = ToySource.spec
    monkeypatch.setattr(ToySource, "spec", lambda self: replace(spec(self), static={}))
    archive = toy_archive(tmp_path / "bare.zarr", end="1979-02-28")
    world = world_of(archive)
    assert world.static.shape == (0, *archive.grid.shape) and world.static_channels == ()
    cond = world.condition(archive.times[:2])
    assert not cond[:, -3:-1].any() and cond[:, -1].any()
