"""The leaderboard's page: its data are the rows', it opens without errors, its controls work."""

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from boards import row, write_board
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.leaderboard import intervals, rows
from gapzoo.report import board

CHROMIUM = next((p for n in ("chromium", "chromium-browser") if (p := shutil.which(n))), None)


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


CATCH = "<script>window.found=[];window.onerror=m=>found.push('error: '+m);</script>"
ACT = f"<script>{(Path(__file__).parent / 'controls.js').read_text()}</script>"


@pytest.fixture(scope="module")
def opened(page, tmp_path_factory):
    """Open the page at a width, use its controls; what was found."""
    if CHROMIUM is None:
        pytest.skip("no chromium here to open the page in")
    folder = tmp_path_factory.mktemp("opened")

    def open_at(width: int) -> dict:
        path = folder / f"{width}.html"
        path.write_text(
            page.replace("<head>", "<head>" + CATCH).replace("</body>", ACT + "</body>")
        )
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += ["--virtual-time-budget=2000", f"--window-size={width},900"]
        command += [f"--user-data-dir={folder / 'profile'}", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
        assert found, done.stderr[-2000:]
        return json.loads(html.unescape(found[1]))

    return open_at


def test_it_opens_without_errors_and_its_controls_work(opened):
    found = opened(1280)
    assert found["errors"] == []
    assert found["sections"] == [
        "Scores", "Scorecard", "Error against density", "Rank histograms", "Spectra", "Maps",
        "Cost against skill", "Cards",
    ]  # fmt: skip
    assert found["table"][0] == "GAP" and found["sorted"][0] == "climatology"
    assert found["card"] == ["GAP", "climatology"]
    assert found["other"] == ["GAP", "optimal interpolation"]
    assert found["z500"] != found["table"] and found["note"].startswith("RMSE, m: Z500.")
    assert found["canvases"] == 6 and found["colours"] > 5
    assert "Skill against lead" in found["second"]
    assert found["rows"] == ["GAP", "persistence (one member)"]


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    found = opened(500)
    assert found["errors"] == [] and found["width"] <= found["inner"]


def test_later_tracks_find_their_sections(opened, tmp_path_factory):
    """Maps and series of rows that bring them; nothing of what they lack."""
    if CHROMIUM is None:
        pytest.skip("no chromium here to open the page in")
    made = tmp_path_factory.mktemp("later")
    base = row("gap", "weather", 0.2)
    packed = {"low": -0.5, "high": 0.9, "shape": [6, 12]}
    packed["data"] = base64.b64encode(bytes(range(72))).decode()
    acc = {"title": "ACC of DJF", "units": "", **packed}
    years = {"title": "global mean temperature", "x_label": "year", "y_label": "K"}
    years |= {"x": list(range(1000)), "y": [288 + 0.1 * (n % 7) for n in range(1000)]}
    scores = {"djf": {"acc": 0.6}, "jja": {"acc": 0.5}}
    later = {
        **base,
        "protocol": "seasonal-toy",
        "scores": scores,
        "fields": [acc],
        "series": [years],
    }
    later["settings"] = {**base["settings"], "track": "seasonal"}
    rows.save(later, made)
    path = board.write(made / "page.html", made)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=2000", f"--user-data-dir={made / 'profile'}", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    sections = re.findall(r'data-section="([^"]*)"', dom)
    assert sections == ["Scores", "Fields", "Long series", "Cards"]
    assert "ACC of DJF" in dom and "global mean temperature" in dom
