"""Stages fitted to what the ones before give, against what is known of a process with memory."""

import pytest
import torch
from models import toy_prior, zonal
from worlds import MEMORY, expect, toy_archive

from gapzoo.core import GapzooError
from gapzoo.data.module import Reader
from gapzoo.forecasters.corrected import Corrected
from gapzoo.forecasters.trivial import Persistence
from gapzoo.tasks import correcting
from gapzoo.training.corrector import Plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    archive = toy_archive(tmp_path_factory.mktemp("stages") / "toy.zarr", end="1983-12-31")
    reader = Reader(archive, toy_prior(archive).world)
    years = archive.indices("1979-01-01", "1982-12-31"), archive.indices("1983-01-01", "1983-12-31")
    return reader, years, zonal(archive)


def fitted(made, stages, plan=None, hours=48):
    reader, years, basis = made
    bars = {}

    def bar(text, total):
        bars[text] = [total, 0]

        def advance(count):
            bars[text][1] += count

        return advance

    step = Persistence(reader.world)
    found, left = correcting.fit_stages(step, reader, years, hours, basis, bar, stages, plan)
    assert all(total == done for total, done in bars.values())
    return Corrected(step, {hours: found}), left, bars


@pytest.mark.parametrize("stages", [1, 2])
def test_two_stages_know_as_much_of_a_linear_process_as_one(made, stages):
    """Persistence errs by 2 (1 - r^2) over two days, the best there is by 1 - r^4."""
    step, left, bars = fitted(made, stages)
    known = (1 - MEMORY**4) / (2 * (1 - MEMORY**2))
    assert left == pytest.approx(known, rel=0.05) and len(bars) == stages
    assert all((stage.linear.most > 0).all() for stage in step.corrections[48])
    reader, years, _ = made
    rows = years[1][:300]
    rows = rows[reader.archive.runs[rows] == reader.archive.runs[rows + 2]]
    start, truth = reader.state(rows), reader.state(rows + 2)
    times, nobody = list(reader.archive.times[rows]), [None] * len(rows)
    found = torch.cat(step.steps(list(start.split(1)), times, 48, nobody, nobody))
    again = (found - truth).square().mean() / (start - truth).square().mean()
    assert float(again) == pytest.approx(left, rel=0.05)


def test_networks_follow_where_they_are_planned(made):
    """The second goes on from the first, on errors of its own; both are kept."""
    step, left, bars = fitted(made, 2, Plan(steps=4, width=8))
    first, second = (stage.local.network for stage in step.corrections[48])
    assert not torch.equal(first.stem.weight, second.stem.weight)
    assert first.error.mean() < second.error.mean()  # a day's errors, then two days'
    assert left < 1 and [total for total, _ in bars.values()].count(4) == 2


def test_what_cannot_be_fitted_is_refused(made, monkeypatch):
    with expect(GapzooError, "48 h in 3 stages; the archive has steps of 24 h"):
        fitted(made, 3)
    reader, years, basis = made
    nothing = years[0][:0], years[1]
    with expect(GapzooError, "no forecasts to fit"):
        correcting.fit_stages(
            Persistence(reader.world), reader, nothing, 24, basis, lambda *_: lambda _: None
        )
    usage = correcting.shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(correcting.shutil, "disk_usage", lambda _: usage)
    with expect(GapzooError, "temporary files", "in the variable TMPDIR"):
        fitted(made, 1)
