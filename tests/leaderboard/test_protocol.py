"""Protocols: the hash follows every setting; initial times are spread and have their truth."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from worlds import ToySource, expect, fill, flat_world, toy_archive

from gapzoo.core import GapzooError
from gapzoo.data.archive import Archive
from gapzoo.data.module import world_of
from gapzoo.leaderboard import TRACKS, protocol
from gapzoo.leaderboard.protocol import Cycling, Protocol

SHIPPED = sorted((Path(__file__).parents[2] / "evaluation" / "protocols").glob("*.yaml"))
OTHER = {
    "name": "other",
    "track": "weather",
    "world": "speedy-t31",
    "variables": ["temperature"],
    "period": ["2007-01-01", "2013-12-31"],
    "cases": 17,
    "members": 17,
    "densities": [0.01],
    "networks": 5,
    "initial": "analysis",
    "analyses": "unet",
    "lead_days": 11,
    "hours": 6,
    "starts": ["05-01"],
    "estimator": "biased",
    "seed": 2,
    "cycling": Cycling(sondes=10),
    "description": "Something else.",
}
SETTINGS = [f.name for f in dataclasses.fields(Protocol)]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_hash_changes_with_every_setting_but_the_description(name):
    base = Protocol(name="a", track="analysis")
    assert getattr(base, name) != OTHER[name], "a value that differs, for every new setting"
    changed = dataclasses.replace(base, **{name: OTHER[name]})
    assert (changed.hash == base.hash) == (name == "description")


def test_the_hash_does_not_depend_on_how_it_was_written(tmp_path):
    lines = ["name: a", "track: analysis", "cases: 3", "densities: [0.1, 0.2]"]
    for file, text in (("x.yaml", lines), ("y.yaml", lines[::-1])):
        (tmp_path / file).write_text("\n".join(text))
    found = [protocol.load(tmp_path / f) for f in ("x.yaml", "y.yaml")]
    written = Protocol(name="a", track="analysis", cases=3, densities=[0.1, 0.2])
    assert found[0].hash == found[1].hash == written.hash


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_protocols_are_sound(path):
    """Tuning never sees a test year, and nothing else any other but a climate, which needs 30."""
    found = protocol.load(path.stem)
    assert found.name == path.stem and found.track in TRACKS and found.description
    first, last = found.period
    tuning = "tune" in path.stem.split("-")
    held_out = first >= "2006" or found.track == "climate"
    assert (first >= "2004" and last < "2006") if tuning else held_out
    action = "tune" if tuning and not path.stem.startswith("tune") else "run"
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(line.startswith(f"# gapzoo leaderboard {action} {path.stem} ") for line in head)


def test_initial_times_are_of_a_single_realisation(tmp_path):
    fill(tmp_path / "twice.zarr", ToySource(end="1979-08-28", realisations=2))
    found, world = Archive(tmp_path / "twice.zarr"), flat_world()
    wanted = Protocol(name="a", track="analysis", world="flat", period=["1979-01-01", "1979-03-01"])
    with expect(GapzooError, "twice.zarr holds 2 realisations", "the truth"):
        wanted.positions(found, world)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Daily; runs of 240 days."""
    return toy_archive(tmp_path_factory.mktemp("protocol") / "toy.zarr")


def toy(**changes):
    settings = {"name": "p", "track": "analysis", "world": "toy", "cases": 5}
    return Protocol(**(settings | {"period": ["1980-01-01", "1980-12-31"]} | changes))


def test_initial_times_span_the_period_evenly(archive):
    found = toy().positions(archive, world_of(archive))
    assert found[0] == 365 and found[-1] == 730 and len(found) == 5
    assert np.ptp(np.diff(found)) <= 1
    assert toy(cases=1).positions(archive, world_of(archive)).tolist() == [365]


def test_every_initial_time_has_its_truth_ahead_in_the_same_run(archive):
    found = toy(cases=300).positions(archive, world_of(archive), 10 * 24)
    assert found.max() == 720, "the archive ends with step 730"
    assert (archive.runs[found] == archive.runs[found + 10]).all()
    joints = {*range(470, 480), *range(710, 720)}
    assert not joints & set(found.tolist()), "joints lie before steps 480 and 720"


def test_what_does_not_fit_is_refused(archive):
    world = world_of(archive)
    with expect(GapzooError, "protocol 'p' is for speedy-t21, the archive is toy"):
        toy(world="speedy-t21").positions(archive, world)
    with expect(GapzooError, "toy.zarr has too few steps"):
        toy(cases=400).positions(archive, world)
    with expect(GapzooError, "protocol 'p' has steps of 30 h, ", "toy.zarr of 24 h"):
        toy(hours=30).positions(archive, world)
    with expect(GapzooError, "no step from 2006-01-01"):
        toy(period=["2006-01-01", "2013-12-31"]).positions(archive, world)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"densities": [0.0]}, "densities must lie in (0, 1]"),
        ({"densities": [1.1]}, "densities"),
        ({"members": 1}, "2 members"),
        ({"cases": 0}, "a case"),
        ({"initial": "guess"}, "initial is 'truth' or 'analysis'"),
    ],
)
def test_settings_without_sense_are_refused(change, part):
    with expect(GapzooError, "protocol 'p'", part):
        toy(**change)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: a\ntrack: analysis\nmember: 3", ["bad.yaml", "'member'", "'members'?"]),
        ("name: a\ntrack: analysis\nmembers: few", ["bad.yaml", "'members'", "few"]),
        ("name: [", ["bad.yaml cannot be read"]),
        ("- 1", ["bad.yaml"]),
        ("track: analysis", ["bad.yaml", "name"]),
    ],
)
def test_files_with_mistakes_are_named(tmp_path, text, parts):
    (tmp_path / "bad.yaml").write_text(text)
    with expect(GapzooError, *parts) as caught:
        protocol.load(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_an_unknown_protocol_is_refused():
    with expect(GapzooError, "none.yaml cannot be read"):
        protocol.load("none")
