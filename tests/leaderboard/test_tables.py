"""Intervals, marks and tables: of rows whose scores are drawn from known distributions."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.leaderboard import intervals, readme, rows, tables

ROOT = Path(__file__).parents[2]
CASES = 60


def times(count: int = CASES, days: int = 30) -> list[str]:
    every = pd.date_range("2006-01-01", periods=count, freq=f"{days}D")
    return [f"{t:%Y-%m-%dT%H}" for t in every]


def row(entry: str, crps: np.ndarray, **changes):
    """One setting, 10 %, with the CRPS and squared errors of its cases."""
    by_case = {"crps": {"mean": crps.tolist()}, "squared_error": {"mean": (crps**2).tolist()}}
    scores = {"0.1": {"crps": float(crps.mean()), "rmse": 1.0, "ranks": [1], "by_case": by_case}}
    base = {"entry": entry, "protocol": "analysis-toy", "protocol_hash": "a", "archive_hash": "a"}
    base |= {"initial_times": times(len(crps)), "cases": len(crps), "members": 5}
    return {**base, "scores": scores, **changes}


@pytest.fixture(scope="module")
def weather():
    """A common difficulty of the cases, which both forecasts share."""
    return 1 + 0.3 * np.random.default_rng(0).standard_normal(CASES)


def test_the_interval_of_a_mean(weather):
    """1.96 standard errors of the mean of independent cases."""
    low, high = intervals.bounds(row("gap", weather), "crps")["0.1"]
    error = weather.std() / np.sqrt(CASES)
    assert (low + high) / 2 == pytest.approx(weather.mean(), abs=0.3 * error)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_roots_are_taken_after_drawing(weather):
    low, high = intervals.bounds(row("gap", weather), "rmse")["0.1"]
    assert low < np.sqrt((weather**2).mean()) < high
    assert intervals.bounds(row("gap", weather), "spectrum_error") == {}


def test_paired_differences_see_what_intervals_do_not(weather):
    """2 % better in every case, under a spread of 30 % that both share."""
    noise = 0.01 * np.random.default_rng(1).standard_normal(CASES)
    first, second = row("a", weather), row("b", weather + 0.02 + noise)
    ranges = [intervals.bounds(r, "crps")["0.1"] for r in (first, second)]
    assert ranges[0][1] > ranges[1][0], "intervals overlap"
    found = intervals.contrasts(second, first, "crps")["0.1"]
    assert found.p < 0.01 and 0 < found.low < 0.02 + noise.mean() < found.high
    back = intervals.contrasts(first, second, "crps")["0.1"]
    assert back.difference == pytest.approx(-found.difference) and back.p < 0.01


def test_a_setting_that_one_row_lacks_leaves_the_others_tested(weather):
    first, second = row("a", weather), row("b", weather + 0.01)
    expected = intervals.contrasts(first, second, "crps")["0.1"]
    first["scores"] = {"0.5": first["scores"]["0.1"], **first["scores"]}
    second["scores"] |= {"0.5": {"crps": float("inf")}}
    assert intervals.contrasts(first, second, "crps") == {"0.1": expected}


def test_no_difference_is_seldom_taken_for_one():
    """p below 5 % in about 5 % of pairs of like forecasts."""
    draws = np.random.default_rng(2)
    found = []
    for _ in range(25):
        pair = [row(n, draws.standard_normal(CASES)) for n in "ab"]
        found.append(intervals.contrasts(*pair, "crps")["0.1"].p)
    assert np.mean(np.array(found) < 0.05) < 0.21 and np.median(found) > 0.25


@pytest.mark.parametrize(("days", "block"), [(30, 1), (5, 1), (2, 3), (1, 5)])
def test_a_block_holds_five_days(weather, days, block):
    assert intervals.block(row("a", weather, initial_times=times(CASES, days))) == block


def test_a_handful_of_times_is_not_tested(weather):
    few, daily = row("a", weather[:4]), row("a", weather[:20], initial_times=times(20, 1))
    old = row("a", weather, scores={"0.1": {"crps": 0.3}})
    for each in (few, daily, old):
        assert not intervals.testable(each) and intervals.bounds(each, "crps") == {}
        assert intervals.contrasts(each, each, "crps") == {}
    assert intervals.testable(row("a", weather[:5]))


@pytest.fixture
def board(tmp_path, weather):
    """a is best, b the same but for noise, c clearly worse."""
    draws = np.random.default_rng(3)
    rows.save(row("a", weather), tmp_path)
    rows.save(row("b", weather + 0.001 + 0.05 * draws.standard_normal(CASES)), tmp_path)
    rows.save(row("c", weather + 0.1), tmp_path)
    return tmp_path


def printed(table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


def test_a_row_that_is_no_competitor_is_left_out_before_the_best_is_found(board):
    text = readme.filled("<!-- leaderboard:analysis-toy without=a -->\n<!-- end -->\n", board)
    assert "| a |" not in text and "| b | **" in text and "| c |" in text
    with pytest.raises(GapzooError, match="no row 'aa' to leave out; did you mean 'a'"):
        readme.filled("<!-- leaderboard:analysis-toy without=aa -->\n<!-- end -->\n", board)


def test_a_table_says_which_ranks_are_real(board):
    ranking = tables.Ranking(rows.rows("analysis-toy", board), "crps")
    names = [tables.label(r) for r in ranking.rows]
    assert names[-1] == "c" and set(names[:2]) == {"a", "b"}
    first, second, last = (ranking.cells(n, "<{}>")[0] for n in range(3))
    assert first.startswith("<") and second.endswith(" ~") and "~" not in last
    text = printed(tables.table(ranking, intervals=True))
    assert "analysis-toy: CRPS" in text and "10 %" in text and " to " in text
    assert "60 initial times" in ranking.note()


def test_differences_from_a_row_have_p_values(board):
    """c is 0.1 worse than a in every case, b the same but for noise."""
    ranking = tables.Ranking(rows.rows("analysis-toy", board), "crps")
    lines = [line for line in printed(tables.against(ranking, "a")).splitlines() if "│" in line]
    told = {name: next(line for line in lines if f"│ {name} " in line) for name in "bc"}
    assert len(lines) == 4, "two rows of two lines"
    assert (
        "+0.100, p 0.001" in told["c"] and "+0.100 to +0.100" in lines[lines.index(told["c"]) + 1]
    )
    assert float(told["b"].split(" p ")[1].split()[0]) > 0.05
    with expect(GapzooError, "no row 'd'"):
        tables.against(ranking, "d")
    old = tables.Ranking([row("a", np.ones(3)), row("d", np.full(3, 1.5))], "crps")
    assert "+0.500, not tested" in printed(tables.against(old, "a"))


def test_many_settings_run_downwards():
    """Ten leads with intervals fit no terminal beside each other; no digit is lost."""
    every = [row("a", np.ones(6)), row("b", np.full(6, 1.5))]
    for r in every:
        r["scores"] = {str(24 * n): r["scores"]["0.1"] for n in range(1, 11)}
    console = Console(file=io.StringIO(), width=80)
    console.print(tables.table(tables.Ranking(every, "crps"), intervals=True))
    text = console.file.getvalue()
    heads = [line.split()[1:3] for line in text.splitlines() if "day" in line]
    assert heads == [["day", str(n)] for n in range(1, 11)]
    assert text.count("1.500 to 1.500") == 10 and "…" not in text


def test_costs_are_columns(board, weather):
    spent = {"wall_seconds": 12.34, "cpu_seconds": 5.04, "scoring_seconds": 1.2}
    rows.save(row("a", weather, **spent, device="CPU, slow"), board)
    text = printed(tables.costs(rows.rows("analysis-toy", board)))
    assert next(line for line in text.splitlines() if "│ a " in line).split("│")[2:6] == [
        "   12 ", " 5.0 ", "           1.2 ", " CPU, slow ",
    ]  # fmt: skip
    lines = tables.markdown("analysis-toy", "crps", board, cost=("seconds",)).splitlines()
    assert lines[0] == "| CRPS | 10 % | wall s | CPU s | of it scoring |"
    assert any(line.startswith("| a |") and line.endswith("| 12 | 5.0 | 1.2 |") for line in lines)


def test_a_diverged_run_is_last(board, weather):
    lost = {"0.1": {"crps": float("inf"), "diverged": [0]}}
    rows.save(row("lost", weather, scores=lost), board)
    ranking = tables.Ranking(rows.rows("analysis-toy", board), "crps")
    assert tables.label(ranking.rows[-1]) == "lost" and ranking.cells(3, "{}") == ["diverged"]


def test_rows_without_cases_still_show(board, weather):
    rows.save(row("old", weather, scores={"0.1": {"crps": 0.5, "ranks": [1]}}), board)
    text = tables.markdown("analysis-toy", "crps", board)
    assert "| old | **0.500** |" in text and "not tested" in text


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("0.01", "1 %"),
        ("1", "100 %"),
        ("240", "day 10"),
        ("36", "36 h"),
        ("surface_pressure", "surface pressure"),
    ],
)
def test_settings_have_names(setting, name):
    assert tables.setting_name(setting) == name


def test_what_rows_do_not_have_is_refused(board, tmp_path):
    with expect(GapzooError, "no rows of protocol 'toy'", "run an entry first"):
        tables.found("toy", board)
    with expect(GapzooError, "'crpss'", "'crps'"):
        tables.Ranking(tables.found("analysis-toy", board), "crpss")
    with expect(GapzooError, "no setting '0.2'"):
        tables.markdown("analysis-toy", "crps", board, settings=("0.2",))


MARKED = "before\n<!-- leaderboard:analysis-toy -->\nold\n<!-- end -->\nafter\n"


def test_a_readme_is_filled_between_its_markers(board, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(MARKED)
    assert readme.write(path, board) and not readme.write(path, board)
    text = path.read_text()
    assert text.startswith("before\n<!-- leaderboard:analysis-toy -->\n| CRPS | 10 % |")
    assert text.endswith("\n<!-- end -->\nafter\n") and "\nold" not in text
    rows.save(row("d", np.full(CASES, 0.1)), board)
    assert readme.write(path, board) and "| d | **0.100** |" in path.read_text()


CLIMATES = {"a": (0.30, 0.80), "b": (0.20, 1.40), "own": (0.05, 1.00)}
"""Bias and ratio: log 0.8 is nearer to log 1 than log 1.4 is."""
SCORED = (
    "<!-- leaderboard:climate-toy scores=bias_relative,variance_ratio limit=own -->\n<!-- end -->"
)


@pytest.fixture
def climates(tmp_path):
    told = {"bias_relative": {"title": "bias over spread", "better": "lower"}}
    for name, (bias, ratio) in CLIMATES.items():
        scores = {"climate": {"bias_relative": bias, "variance_ratio": ratio}}
        whole = row(name, np.ones(1), protocol="climate-toy", scores=scores, metrics=told)
        rows.save(whole, tmp_path)
    return tmp_path


def test_scores_run_downwards_and_a_limit_does_not_compete(climates):
    lines = readme.filled(SCORED, climates).splitlines()
    assert lines[1] == "| | b | a | own |"
    assert lines[3] == "| bias over spread | **0.200** | 0.300 | 0.050 |"
    assert lines[4] == "| variance ratio | 1.40 | **0.80** | 1.00 |"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("limit=own", "limit=on"), "no row 'on' to leave out; did you mean 'own'?"),
        (("limit=own", "below=crps"), "no option 'below'"),
        (("variance_ratio", "variance"), "have no 'variance'"),
    ],
)
def test_mistakes_in_a_table_of_scores_are_refused(climates, change, part):
    with expect(GapzooError, part):
        readme.filled(SCORED.replace(*change), climates)


def test_a_table_of_scores_takes_one_setting(board):
    rows.save(row("e", np.ones(CASES), scores={"0.1": {"crps": 1.0}, "0.2": {"crps": 2.0}}), board)
    text = MARKED.replace("toy -->", "toy scores=crps -->")
    with expect(GapzooError, "shows one setting, and rows of 'analysis-toy' have 0.1, 0.2"):
        readme.filled(text, board)
    text = text.replace("scores=crps", "scores=crps settings=0.1")
    assert "| CRPS | " in readme.filled(text, board)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (MARKED.replace("<!-- end -->", ""), "has no '<!-- end -->'"),
        (MARKED.replace("analysis-toy", "gone"), "no rows of protocol 'gone'"),
        (MARKED.replace("toy -->", "toy metrics=crps -->"), "'metrics'; did you mean 'metric'?"),
    ],
)
def test_markers_with_mistakes_are_refused(board, text, part):
    with expect(GapzooError, part):
        readme.filled(text, board)


def test_the_readme_is_in_step_with_the_rows():
    """Where it fails: gapzoo leaderboard readme."""
    text = (ROOT / "README.md").read_text()
    assert "<!-- leaderboard:" in text
    assert readme.filled(text, ROOT / "evaluation" / "leaderboard") == text
