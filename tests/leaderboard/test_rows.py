"""Rows: stored whole, read back, never compared across unlike protocols or truths."""

import io
import json

import pytest
from rich.console import Console
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.leaderboard import rows
from gapzoo.leaderboard.protocol import Protocol

TOY = Protocol(name="toy", track="analysis", densities=[0.1, 0.5])


def row(entry: str, crps: float, **changes):
    scores = {"0.1": {"crps": crps, "rmse": 1.0}, "0.5": {"crps": crps / 2, "rmse": 0.5}}
    base = {"entry": entry, "protocol": "toy", "protocol_hash": TOY.hash, "archive_hash": "a"}
    return {**base, "scores": scores, **changes}


def printed(table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


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


def test_a_table_holds_the_numbers(tmp_path):
    rows.save(row("gap", 0.25), tmp_path)
    text = printed(rows.table("toy", "crps", tmp_path))
    assert "toy: crps" in text
    line = next(line for line in text.splitlines() if "gap" in line)
    assert "0.250" in line and "0.125" in line
    assert "0.5" in text and "0.250" not in printed(rows.table("toy", "rmse", tmp_path))


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
        rows.table("toy", "crps", tmp_path)


def test_a_changed_protocol_makes_unlike_rows(tmp_path):
    other = Protocol(name="toy", track="analysis", densities=[0.1, 0.5], seed=2)
    rows.save(row("gap", 0.25), tmp_path)
    rows.save(row("climatology", 0.5, protocol_hash=other.hash), tmp_path)
    with expect(GapzooError, "differ in protocol_hash", "gap"):
        rows.rows("toy", tmp_path)


def test_other_protocols_and_tunings_do_not_mix_in(tmp_path):
    """A protocol whose name begins alike, and the result of tuning."""
    rows.save(row("gap", 0.25), tmp_path)
    rows.save(row("gap", 0.25, protocol="toy.v2", protocol_hash="other"), tmp_path)
    tuned = {"entry": "gap.tuned", "protocol": "toy", "best": {"0.1": {"steps": 3}}, "tried": []}
    rows.save(tuned, tmp_path)
    assert [r["entry"] for r in rows.rows("toy", tmp_path)] == ["gap"]


def test_no_rows_and_broken_rows_are_named(tmp_path):
    with expect(GapzooError, "no rows of protocol 'toy'", "run an entry first"):
        rows.table("toy", "crps", tmp_path)
    (tmp_path / "toy.gap.json").write_text('{"entry": ')
    with expect(GapzooError, "toy.gap.json"):
        rows.rows("toy", tmp_path)


def test_a_metric_that_rows_do_not_have_names_those_there_are(tmp_path):
    rows.save(row("gap", 0.25), tmp_path)
    with expect(GapzooError, "'crpss'", "'crps'"):
        rows.table("toy", "crpss", tmp_path)


def test_rows_are_plain_json(tmp_path):
    path = rows.save(row("gap", 0.25), tmp_path)
    assert json.loads(path.read_text())["scores"]["0.1"]["crps"] == 0.25
