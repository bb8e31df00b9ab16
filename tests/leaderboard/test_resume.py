"""A killed run goes on with its first open case; its row is that of a run that was not killed."""

import json
import shlex

import numpy as np
import pytest
from models import saved, toy_prior
from worlds import expect, toy_archive

from gapzoo.core import GapzooError
from gapzoo.leaderboard import rows
from gapzoo.leaderboard.journal import Journal, Shared
from gapzoo.leaderboard.methods import ClimatologyMethod
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.tasks.assimilation import Assimilation

COSTS = ("wall_seconds", "cpu_seconds", "scoring_seconds", "cost")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("resume") / "toy.zarr"
    return toy_archive(path, ("1979-01-01", "1979-12-31"), segment_shards=99)


def protocol(track: str, **changes) -> Protocol:
    settings = {"world": "toy", "period": ["1980-01-01", "1980-12-31"], "cases": 3, "members": 3}
    settings |= {"densities": [0.25, 0.5], "networks": 2, "lead_days": 2, "hours": 24}
    return Protocol(name=f"toy-{track}", track=track, **(settings | changes))


class Killer:
    """Counts the calls of a method and stops one of them from outside, as ctrl-C does."""

    def __init__(self, monkeypatch, owner, name):
        self.calls, self.at, original = 0, 0, getattr(owner, name)

        def counted(method, *arguments, **named):
            self.calls += 1
            if self.calls == self.at:
                raise KeyboardInterrupt
            return original(method, *arguments, **named)

        monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize(
    ("track", "draws", "kept"), [("analysis", 6, 3), ("weather", 6, 2), ("cycle", 12, 3)]
)
def test_a_killed_run_goes_on(archive, tmp_path, monkeypatch, track, draws, kept):
    """Killed twice, at different cases: nothing that is finished is drawn again.

    That is a case of the analysis, a forecast (of two draws), and one step of a cycle.
    """
    killer = Killer(monkeypatch, ClimatologyMethod, "season")
    whole = tmp_path / "whole"
    expected = json.loads(
        rows.store(protocol(track), archive, "climatology", {}, whole).read_text()
    )
    assert killer.calls == draws
    for stop in (2, 3):
        killer.calls, killer.at = 0, stop
        with pytest.raises(KeyboardInterrupt):
            rows.store(protocol(track), archive, "climatology", {}, tmp_path)
    killer.calls, killer.at = 0, 0
    path = rows.store(protocol(track), archive, "climatology", {}, tmp_path)
    assert killer.calls == draws - kept
    found = json.loads(path.read_text())
    assert {k: v for k, v in found.items() if k not in COSTS} == {
        k: v for k, v in expected.items() if k not in COSTS
    }
    assert not list((tmp_path / ".cases").rglob("*.npz")), "nothing is left behind"


def test_samples_of_a_prior_go_on(archive, tmp_path, monkeypatch):
    killer = Killer(monkeypatch, Assimilation, "analyse")
    options = {"prior": str(saved(toy_prior(archive), tmp_path / "p")), "steps": 2}
    expected = rows.run(protocol("prior"), archive, "gap", dict(options))
    killer.calls, killer.at = 0, 2
    with pytest.raises(KeyboardInterrupt):
        rows.store(protocol("prior"), archive, "gap", dict(options), tmp_path)
    killer.calls, killer.at = 0, 0
    path = rows.store(protocol("prior"), archive, "gap", dict(options), tmp_path)
    assert killer.calls == 2
    assert json.loads(path.read_text())["scores"] == json.loads(json.dumps(expected["scores"]))


@pytest.mark.parametrize(
    "track",
    ["cycle", *(pytest.param(track, marks=pytest.mark.slow) for track in ("analysis", "weather"))],
)
def test_processes_share_a_run(archive, tmp_path, monkeypatch, track):
    """Two of them make the row of one, and leave it nothing to draw."""
    alone = rows.store(protocol(track), archive, "climatology", {}, tmp_path / "alone")
    killer = Killer(monkeypatch, ClimatologyMethod, "season")
    together = rows.store(
        protocol(track), archive, "climatology", {}, tmp_path / "together", processes=2
    )
    assert killer.calls == 0, "all was drawn in the helpers"
    expected, found = (json.loads(path.read_text()) for path in (alone, together))
    assert {k: v for k, v in found.items() if k not in COSTS} == {
        k: v for k, v in expected.items() if k not in COSTS
    }


@pytest.mark.slow
def test_processes_share_what_is_tuned(archive, tmp_path):
    grid = {"samples": [40, 80], "length": [2e6]}
    wanted = protocol("analysis", cases=2)
    alone = rows.tune(wanted, archive, "optimal_interpolation", grid)
    found = rows.tune(wanted, archive, "optimal_interpolation", grid, folder=tmp_path, processes=2)
    assert found["tried"] == alone["tried"] and found["best"] == alone["best"]
    assert not list((tmp_path / ".cases").rglob("*.npz"))


@pytest.mark.slow
def test_an_error_of_a_helper_is_the_runs(archive, tmp_path):
    options = {"prior": str(tmp_path / "nowhere")}
    with expect(GapzooError, "nowhere"):
        rows.store(protocol("analysis"), archive, "gap", options, tmp_path, processes=2)
    with expect(GapzooError, "0 processes"):
        rows.store(protocol("analysis"), archive, "climatology", {}, tmp_path, processes=0)


def test_a_helper_makes_what_no_other_has_begun(tmp_path):
    """What was begun by one that is lost is left for the run itself."""
    claims, made = tmp_path / "claims", []
    claims.mkdir()
    (claims / "two").touch()
    makes = {k: lambda k=k: made.append(k) or {"x": np.zeros(1)} for k in ("one", "two", "three")}
    helper = Journal(tmp_path, {"name": "a"}, claims=claims)
    helper.begin({})
    with pytest.raises(Shared):
        helper.share(makes)
    assert made == ["one", "three"]
    itself = Journal(tmp_path, {"name": "a"})
    itself.begin({})
    itself.share(makes)
    for key, make in makes.items():
        itself.case(key, make)
    assert made == ["one", "three", "two"]


def test_another_run_does_not_take_its_cases(archive, tmp_path, monkeypatch):
    """Other settings, options or names are other runs."""
    killer = Killer(monkeypatch, ClimatologyMethod, "season")
    killer.at = 3
    with pytest.raises(KeyboardInterrupt):
        rows.store(protocol("analysis"), archive, "climatology", {}, tmp_path)
    killer.calls, killer.at = 0, 0
    rows.store(protocol("analysis", seed=2), archive, "climatology", {}, tmp_path)
    assert killer.calls == 6
    assert len(list((tmp_path / ".cases").rglob("*.npz"))) == 2, "the first run's are kept"


def test_a_case_that_was_cut_off_is_made_again(tmp_path):
    journal = Journal(tmp_path, {"name": "a"})
    journal.begin({})
    made = journal.case("one", lambda: {"x": np.array([0.1, np.pi])})
    file = next(tmp_path.rglob("one.npz"))
    again = Journal(tmp_path, {"name": "a"})
    again.begin({})
    kept = again.case("one", lambda: pytest.fail("it is there"))
    assert (kept["x"] == made["x"]).all() and again.wall == journal.wall
    file.write_bytes(file.read_bytes()[:40])
    assert not again.done("one")
    assert (again.case("one", lambda: {"x": made["x"]})["x"] == made["x"]).all()
    assert (tmp_path / ".gitignore").read_text() == "*\n", "git does not see what is unfinished"


def test_what_was_made_in_parts_brings_its_own_cost():
    journal, spent = Journal(), np.array([5.0, 4.0])
    journal.case("one", lambda: {"cost": spent, "commit": np.array("first, second")})
    assert (journal.wall, journal.cpu) == (5.0, 4.0)
    assert journal.commits == ["first", "second"]


def test_the_command_of_a_named_row_makes_that_row_again(archive, tmp_path):
    """Without its name it would be written over another row of the same method."""
    from gapzoo.cli import parser

    path = rows.store(protocol("analysis"), archive, "climatology", {}, tmp_path, "my climate")
    row = json.loads(path.read_text())
    args = parser().parse_args(shlex.split(row["command"])[1:])
    assert args.name == row["name"] == "my climate"
