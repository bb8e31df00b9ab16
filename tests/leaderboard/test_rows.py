"""Rows: stored whole, read back, never compared across unlike protocols or truths."""

import dataclasses
import json

import pytest
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.leaderboard import rows
from gapzoo.leaderboard.protocol import Protocol

TOY = Protocol(name="toy", track="analysis", densities=[0.1, 0.5])


def row(entry: str, crps: float, **changes):
    scores = {"0.1": {"crps": crps, "rmse": 1.0}, "0.5": {"crps": crps / 2, "rmse": 0.5}}
    base = {"entry": entry, "protocol": "toy", "protocol_hash": TOY.hash, "archive_hash": "a"}
    return {**base, "scores": scores, **changes}


def test_rows_are_read_back_as_they_were(tmp_path):
    first, second = row("gap", 0.25), row("climatology", 0.5)
    for each in (first, second):
        rows.save(each, tmp_path)
    assert rows.rows("toy", tmp_path) == [second, first]
    rows.save(row("gap", 0.2), tmp_path)
    found = {r["entry"]: r["scores"]["0.1"]["crps"] for r in rows.rows("toy", tmp_path)}
    assert found == {"climatology": 0.5, "gap": 0.2}, "one of the same name is replaced"
    rows.save(row("gap", 0.1), tmp_path, "gap more steps")
    assert (tmp_path / "toy.gap-more-steps.json").exists()
    assert len(rows.rows("toy", tmp_path)) == 3 and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"protocol_hash": "0123456789ab"}, "protocol_hash"),
        ({"archive_hash": "b"}, "archive_hash"),
    ],
)
def test_unlike_rows_are_refused(tmp_path, change, named):
    rows.save(row("gap", 0.25), tmp_path)
    rows.save(row("climatology", 0.5, **change), tmp_path)
    with expect(GapzooError, "rows of 'toy' differ in", named, "run them again alike"):
        rows.rows("toy", tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, "differ in seed: 1 (gap), 2 (climatology)"),
        ({"members": 17}, "differ in members: 16 (gap), 17"),
        ({"densities": [0.1]}, "differ in densities: [0.1, 0.5]"),
        ({"estimator": "biased"}, "differ in estimator: fair"),
        ({"period": ["2006-01-01", "2012-12-31"]}, "differ in period"),
    ],
)
def test_the_setting_that_differs_is_named(tmp_path, change, named):
    other = dataclasses.replace(TOY, **change)
    for protocol, entry in ((TOY, "gap"), (other, "climatology")):
        settings = {"settings": dataclasses.asdict(protocol), "protocol_hash": protocol.hash}
        rows.save(row(entry, 0.25, **settings), tmp_path)
    first, second = (rows._read(tmp_path / f"toy.{n}.json") for n in ("gap", "climatology"))
    with expect(GapzooError, named):
        rows.refuse_unlike(first, second)
    with expect(GapzooError, "differ in", next(iter(change))):
        rows.rows("toy", tmp_path)


def test_a_new_row_is_shown_beside_its_like(tmp_path):
    """After a protocol has changed its old rows wait to be run again; they stop nobody."""
    for name in ("older", "old"):
        rows.save(row(name, 0.3, archive_hash="b"), tmp_path)
    rows.save(row("gap", 0.25), tmp_path)
    path = rows.save(row("climatology", 0.5), tmp_path)
    found, why = rows.alike(path, tmp_path)
    assert [r["entry"] for r in found] == ["climatology", "gap"]
    assert why == ["old, older (archive_hash b, here a); run them again alike"]


def test_other_initial_times_are_unlike(tmp_path):
    rows.save(row("gap", 0.25, initial_times=["2006-01-01T00"]), tmp_path)
    rows.save(row("climatology", 0.5, initial_times=["2006-01-02T00"]), tmp_path)
    with expect(GapzooError, "differ in initial_times"):
        rows.rows("toy", tmp_path)
    many = [f"2006-01-{day:02}T00" for day in range(1, 32)]
    path = rows.save(row("free", 0.5, initial_times=many), tmp_path)
    assert all(len(line) < 200 for line in rows.alike(path, tmp_path)[1])
    path.unlink()
    rows.save(row("climatology", 0.5), tmp_path)
    assert len(rows.rows("toy", tmp_path)) == 2, "rows of before cases were kept still show"


def test_forecasts_from_other_analyses_are_unlike():
    first, second = (row(n, 0.3, analyses_sha256=n) for n in "ab")
    with expect(GapzooError, "differ in analyses_sha256: a (a), b (b)"):
        rows.refuse_unlike(first, second)
    rows.refuse_unlike(first, row("c", 0.3))


def test_other_protocols_and_tunings_do_not_mix_in(tmp_path):
    """A protocol whose name begins alike, and the result of tuning."""
    rows.save(row("gap", 0.25), tmp_path)
    rows.save(row("gap", 0.25, protocol="toy.v2", protocol_hash="other"), tmp_path)
    tuned = {"entry": "gap.tuned", "protocol": "toy", "best": {"0.1": {"steps": 3}}, "tried": []}
    rows.save(tuned, tmp_path)
    assert [r["entry"] for r in rows.rows("toy", tmp_path)] == ["gap"]


def test_broken_rows_are_named(tmp_path):
    (tmp_path / "toy.gap.json").write_text('{"entry": ')
    with expect(GapzooError, "toy.gap.json"):
        rows.rows("toy", tmp_path)


def test_rows_are_plain_json(tmp_path):
    path = rows.save(row("gap", 0.25), tmp_path)
    assert json.loads(path.read_text())["scores"]["0.1"]["crps"] == 0.25


def test_lists_take_one_line_and_strings_stay_as_they_are(tmp_path):
    text = 'brackets [1,   2] and "quotes"'
    path = rows.save(row("gap", 0.25, ranks=[1, 2, 3], notes=text, nested=[[1], [2]]), tmp_path)
    assert '"ranks": [1, 2, 3]' in path.read_text()
    found = json.loads(path.read_text())
    assert found["notes"] == text and found["nested"] == [[1], [2]]
