"""The leaderboard's page: its data are the rows', it opens without errors, its controls work."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from boards import row, seasonal_row, write_board, write_later
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.leaderboard import intervals, rows
from gapzoo.report import board

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((p for n in NAMES if (p := shutil.which(n))), None)
QUIET = "--headless --no-sandbox --disable-gpu --no-first-run --disable-extensions --disable-sync"
QUIET += " --disable-background-networking --disable-component-update --disable-default-apps"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    return board.write(path, folder).read_text()


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def test_the_page_needs_nothing_beside_it(page):
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a name of the SVG standard, never fetched"
    assert "<link" not in page and " src=" not in page and "@import" not in page
    assert len(page) < 400_000


def test_its_numbers_are_those_of_the_rows(folder, page):
    part = next(p for p in data_of(page)["protocols"] if p["title"] == "analysis-toy")
    assert part["axis"] == "density" and part["heads"] == ["1 %", "10 %", "25 %"]
    every = {r["title"]: r for r in part["rows"]}
    gap = json.loads((folder / "analysis-toy.gap.json").read_text())
    shown = every["GAP"]
    for n, setting in enumerate(("0.01", "0.1", "0.25")):
        known = gap["scores"][setting]
        assert shown["scores"]["crps"]["mean"][n] == pytest.approx(known["crps"], rel=1e-4)
        z500 = known["headline"]["geopotential@500"]["rmse"] / 9.80665
        assert shown["scores"]["rmse"]["geopotential@500"][n] == pytest.approx(z500, rel=1e-4)
        range_ = intervals.bounds(gap, "crps")[setting]
        assert shown["bounds"]["crps"]["mean"][n] == pytest.approx(range_, rel=1e-4)
        assert shown["ranks"][n] == known["ranks"]
    assert [f"{label['name']} {label['units']}" for label in part["labels"]] == [
        "all channels ", "Z500 m", "T850 K", "U850 m/s", "Q700 g/kg", "MSL hPa",
    ]  # fmt: skip
    assert shown["cost"] == pytest.approx((30 - 1) / (6 * 3 * 5), rel=1e-4)


def test_pairs_carry_their_p_values(folder, page):
    part = next(p for p in data_of(page)["protocols"] if p["title"] == "analysis-toy")
    titles = [r["title"] for r in part["rows"]]
    i, j = sorted((titles.index("GAP"), titles.index("climatology")))
    files = {"GAP": "analysis-toy.gap.json", "climatology": "analysis-toy.climatology.json"}
    pair = [json.loads((folder / files[titles[k]]).read_text()) for k in (i, j)]
    known = intervals.contrasts(*pair, "crps", "temperature@850")
    assert part["p"]["crps"]["temperature@850"][f"{i},{j}"] == pytest.approx(
        [known[s].p for s in ("0.01", "0.1", "0.25")], rel=1e-4
    )
    assert titles[part["reference"]] == "optimal interpolation"


def test_markup_in_rows_stays_text(tmp_path):
    bad = "</script><b>"
    rows.save({**row("gap", "weather", 0.2), "name": bad}, tmp_path)
    page = board.write(tmp_path / "page.html", tmp_path).read_text()
    assert bad not in page and data_of(page)["protocols"][0]["rows"][0]["title"] == bad


def test_one_case_is_told_as_one(tmp_path):
    rows.save({**row("gap", "weather", 0.2), "cases": 1}, tmp_path)
    page = board.write(tmp_path / "page.html", tmp_path).read_text()
    assert data_of(page)["protocols"][0]["facts"].startswith("1 case, 5 members, ")


def test_cycles_are_drawn_of_stations_by_density_and_of_radiosondes(tmp_path):
    one = row("gap", "analysis", 0.2)
    one["scores"] = {n: dict(one["scores"]["0.1"]) for n in ("0.1", "radiosondes")}
    for scores in one["scores"].values():
        scores["crps_by_cycle"] = [[0.5, 0.3], [0.3, 0.1]]
    rows.save(one, tmp_path)
    page = board.write(tmp_path / "page.html", tmp_path).read_text()
    drawn = [s for s in data_of(page)["protocols"][0]["rows"][0]["series"] if s["y"] == [0.4, 0.2]]
    assert [s["title"] for s in drawn] == [
        "CRPS along the cycle, 10 %",
        "CRPS along the cycle, radiosondes",
    ]


def test_no_rows_and_unlike_rows_are_refused(tmp_path):
    with expect(GapzooError, "no rows in", "run an entry first"):
        board.write(tmp_path / "page.html", tmp_path)
    rows.save(row("gap", "weather", 0.2), tmp_path)
    rows.save({**row("persistence", "weather", 0.2, 1), "archive_hash": "other"}, tmp_path)
    with expect(GapzooError, "differ in archive_hash"):
        board.write(tmp_path / "page.html", tmp_path)
    assert not (tmp_path / "page.html").exists()


def test_colours_are_told_apart_by_colour_blind_readers():
    """Lines' first seven under deuteranopia and protanopia (Machado et al. 2009, severity 1)."""
    script = (board.ASSETS / "charts.js").read_text()
    listed = re.search(r"COLOURS = \[(.*?)\]", script)[1]
    codes = re.findall(r"#(\w{6})", listed)
    colours = [[int(code[k : k + 2], 16) / 255 for k in (0, 2, 4)] for code in codes]
    deuter = [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]
    protan = [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]
    for seen in (np.eye(3), np.array(deuter), np.array(protan)):
        found = (np.array(colours[:7]) ** 2.2 @ seen.T).clip(0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(found[:, None] - found[None], axis=-1) + np.eye(len(found))
        assert apart.min() > 0.12


CATCH = """<script>window.found = [];
window.addEventListener("error", e => found.push("error: " + e.message));
window.addEventListener("unhandledrejection", e => found.push("rejected: " + e.reason));
for (const kind of ["error", "warn"]) console[kind] = (...words) => found.push(kind + ": " + words);
</script>"""
CONTROLS = (Path(__file__).parent / "controls.js").read_text()
AROUND = """<!doctype html><pre id="result"></pre><script>
addEventListener("message", e => (document.getElementById("result").textContent = e.data));
</script><iframe src="{}" width="{}" height="900" style="border:0"></iframe>"""


@pytest.fixture
def opened(tmp_path):
    """Open a page at a width in Chromium, use controls in turn; what a reader sees after each."""
    if CHROMIUM is None:
        pytest.skip("no chromium here to open the page in (apt-get install chromium)")

    def open_at(page: str, width: int, *steps: str) -> dict:
        act = f"<script>const STEPS = {json.dumps(steps)};\n{CONTROLS}</script>"
        inner, outer = tmp_path / "page.html", tmp_path / "around.html"
        inner.write_text(
            page.replace("<head>", "<head>" + CATCH).replace("</body>", act + "</body>")
        )
        outer.write_text(AROUND.format(html.escape(inner.as_uri()), width))
        command = [CHROMIUM, *QUIET.split(), "--dump-dom"]
        command += ["--virtual-time-budget=5000", f"--window-size={max(width, 500)},900"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", outer.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        found = re.search(r'<pre id="result">(.+?)</pre>', done.stdout, re.DOTALL)
        assert found, done.stderr[-2000:]
        return json.loads(html.unescape(found[1]))

    return open_at


def test_it_opens_without_errors_and_its_controls_work(page, opened):
    steps = ("nothing", "sort", "reference", "metric", "field", "setting", "cards", "tab")
    found = opened(page, 1280, *steps, "strange", "link")
    assert found["errors"] == []
    first = found["nothing"]
    assert first["sections"] == [
        "Scores", "Scorecard", "Score by lead and density", "Rank histograms", "Spectra", "Maps",
        "Series", "Cost against skill", "Cards",
    ]  # fmt: skip
    waves = "spread over error by wavenumber"
    assert first["series"] == [f"{waves}, 1 %", f"{waves}, 25 %"]
    assert first["names"] == ["GAP", "optimal interpolation", "climatology"]
    assert first["cards"] == ["GAP", "climatology"] and "Bold is best" in first["note"]
    assert first["costs"][:6] == ["GAP", "40", "30", "1.0", "0.32", "CPU, a test"]
    assert found["sort"]["names"][0] == "climatology"
    assert found["reference"]["cards"] == ["GAP", "optimal interpolation"]
    assert found["metric"]["note"].startswith("RMSE: mean over 10 channels")
    assert found["field"]["note"].startswith("RMSE, m: Z500.")
    assert found["field"]["table"] != found["metric"]["table"]
    assert len(first["maps"]) == 6 and min(first["colours"]) > 5
    assert first["pairs"] == [2, 2, 2], "error beside spread, row by row"
    at_the_top = [y for y in found["setting"]["spectra"] if y <= 10]
    assert len(found["setting"]["spectra"]) > 9 and len(at_the_top) == 1, "none is cut off"
    assert found["cards"]["hash"] == (
        "#protocol=analysis-toy&metric=rmse&field=geopotential@500&at=10+%&reference=climatology"
    )
    assert found["tab"]["names"] == ["GAP", "persistence (one member)"]
    assert found["tab"]["hash"].startswith("#protocol=weather-toy&metric=crps&field=mean&at=day+3")
    assert found["strange"]["names"] == first["names"], "what is not there is not looked for"
    linked = found["link"]
    assert linked["note"].startswith("ACC: T850") and "at=day+2&" in linked["hash"]
    assert linked["cards"] == ["persistence (one member)"]


def test_a_phone_shows_it_without_scrolling_sideways(page, opened):
    found = opened(page, 390, "nothing", "cards", "tab")
    assert found["errors"] == []
    for step in ("nothing", "cards", "tab"):
        assert found[step]["inner"] == 390 and found[step]["width"] <= 390


def test_seasonal_and_climate_rows_find_their_sections(tmp_path, opened):
    """Maps, series and scores that only their rows know; nothing of what they lack."""
    path = board.write(tmp_path / "later.html", write_later(tmp_path / "later"))
    found = opened(path.read_text(), 390, "nothing", "tab", "setting")
    assert found["errors"] == []
    climate, seasonal = found["nothing"], found["tab"]
    assert climate["sections"] == [
        "Scores", "Scorecard", "Maps", "Fields", "Series", "Cost against skill", "Cards",
    ]  # fmt: skip
    assert climate["note"].startswith("drift, K a century: over all. Bold is best.")
    assert climate["names"] == ["SPEEDY", "GAP"], "the smaller drift first"
    assert climate["series"] == ["Global mean temperature", "Annual cycle", "Power of Nino3.4"]
    assert climate["legends"][0] == "SPEEDY: runGAP: run"
    assert climate["legends"][1] == "SPEEDYGAPtruth", "what all rows share is drawn once"
    ratio, regression = climate["scales"]
    low, high = re.fullmatch(r"T850: variance over the truth's(\d\.\d\d)(\d\.\d\d)", ratio).groups()
    assert float(low) * float(high) == pytest.approx(1, abs=0.02)
    assert regression.startswith("ENSO regression of rain-") and "mm/d/K" in regression
    assert seasonal["names"] == ["GAP", "climatology"] and "ACC" in seasonal["note"]
    assert [s.split("-")[0] for s in seasonal["scales"]] == ["T2M: ACC", "T2M: bias"]
    assert "no value" in seasonal["scales"][0] and "-1.001.00" in seasonal["scales"][0]
    assert seasonal["maps"] == ["GAP", "climatology"] * 2
    assert max(climate["width"], seasonal["width"]) <= 390


def test_seasonal_skill_has_intervals(tmp_path):
    """RPSS from its two terms by case: a ratio of means, not a mean of ratios."""
    row_ = seasonal_row("gap", 0.6)
    kept = row_["scores"]["nov_djf"]["by_case"]
    low, high = intervals.bounds(row_, "rpss", "nino34")["nov_djf"]
    assert low < 1 - np.mean(kept["rps"]["nino34"]) / 0.22 < high
    paired = intervals.contrasts(row_, seasonal_row("climatology", 0.0), "rpss", "nino34")
    assert paired["nov_djf"].p < 0.05 and paired["nov_djf"].difference > 0
