"""Invariants of the real-day check on a small sigma world; known answers of its parts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from real_days import GRID, NAMES, TIME, WORLD, prior, sample, soundings, stored

from gapzoo import checkpoint, cli
from gapzoo.core import GapzooError
from gapzoo.core.pressure import to_pressure
from gapzoo.data.observations import Observations
from gapzoo.report import real_day as report
from gapzoo.tasks.calibration import Calibration
from gapzoo.tasks.real_day import RealDay
from gapzoo.tasks.real_state import RealState, on_sigma, read_state
from gapzoo.tasks.sampling import Sampling
from gapzoo.tasks.soundings import Soundings, Verdict

ROOT = Path(__file__).parents[2]
ERA5 = ROOT.parent / "shared" / "data" / "era5_tl31_19590102T00.nc"


def test_what_cannot_be_used_has_its_reason():
    table = soundings(6)
    odd = table.iloc[:6].copy().reset_index(drop=True)
    odd["station"] = "odd"
    odd.loc[0, "level"] = 50.0
    odd.loc[1, "level"] = 1030.0
    odd.loc[2, ["variable", "value"]] = ["geopotential", 1e4]
    odd.loc[3, ["variable", "value", "level"]] = ["specific_humidity", 1e-5, 250.0]
    odd.loc[4, "time"] = TIME + pd.Timedelta(hours=5)
    odd.loc[5, "value"] = -154.5
    own = Soundings.of(Observations(pd.concat([table, odd])), WORLD, TIME)
    expected = {
        "above the model's highest level", "below the model's ground", "humidity above 300 hPa",
        "variable is not among the channels", "farther than 3 h", "value is not plausible",
    }  # fmt: skip
    reasons = own.rejected[own.rejected["station"] == "odd"]["reason"]
    assert set(reasons) == expected and len(reasons) == 6
    with pytest.raises(GapzooError, match="0 stations within 3 h"):
        Soundings.of(Observations(table), WORLD, TIME + pd.Timedelta(days=1))
    with pytest.raises(GapzooError, match="on sigma levels"):
        Soundings.of(Observations(table, "sigma"), WORLD, TIME)


def test_stations_are_withheld_whole_and_repeat_by_seed():
    observations = Observations(soundings(20))
    own = Soundings.of(observations, WORLD, TIME, share=0.25, seed=3)
    stations = own.observations.table["station"]
    held, used = set(stations[own.withheld]), set(stations[~own.withheld])
    assert len(held) == 5 and not held & used and len(used) == 15
    again = Soundings.of(observations, WORLD, TIME, share=0.25, seed=3)
    assert np.array_equal(own.withheld, again.withheld)
    other = Soundings.of(observations, WORLD, TIME, share=0.25, seed=4)
    assert set(other.observations.table["station"][other.withheld]) != held


def test_errors_are_shared_by_averages_of_one_level():
    table = soundings(3)
    extra = table[table["variable"] == "temperature"].assign(level=lambda t: t["level"] * 0.7)
    own = Soundings.of(Observations(pd.concat([table, extra])), WORLD, TIME)
    calibration = replace(Calibration.none(WORLD), error=np.full(13, 2.0))
    errors, channel = own.errors(calibration), own.channel
    station = own.observations.table["station"].to_numpy()
    for n in range(len(errors)):
        shared = ((channel == channel[n]) & (station == station[n])).sum()
        assert errors[n] == pytest.approx(2.0 * shared**0.5)
    raw = own.errors(Calibration.none(WORLD))
    np.testing.assert_allclose(raw, own.observations.table["error"])


def test_a_calibrated_ensemble_is_judged_flat_and_a_biased_one_is_not():
    own = Soundings.of(Observations(soundings(200)), WORLD, TIME, share=0.5)
    rows, errors = np.flatnonzero(own.withheld), np.full(len(own.observations), 1e-9)
    g = torch.Generator().manual_seed(1)
    table = own.observations.table
    mean, spread = (
        own.operator(own.climate[0]),
        own.departures(*own.climate)["spread"].to_numpy(copy=True),
    )
    noise = torch.randn(9, len(table), generator=g) * torch.from_numpy(spread).float()
    flat = Verdict.of(own, rows, errors, mean + noise)
    share = flat.ranks / flat.ranks.sum() * 10
    assert len(flat.ranks) == 10 and abs(share - 1).max() < 0.25
    summary = flat.summary()
    ratio = summary["rms"] / summary["expected"]
    assert ratio.mean() == pytest.approx(np.sqrt(10 / 9), rel=0.1)
    warm = Verdict.of(own, rows, errors, mean + noise + torch.from_numpy(3 * spread).float())
    assert warm.ranks[0] > 0.8 * warm.ranks.sum()
    assert (warm.summary()["bias"] < 0).all()


def run(table: pd.DataFrame, **changes) -> RealDay:
    own = Soundings.of(Observations(table), WORLD, TIME)
    options = {"sampling": Sampling(steps=3), "sample": sample(), "members": 3, **changes}
    return RealDay(own, prior(), **options).run()


@pytest.fixture(scope="module")
def day() -> RealDay:
    return run(soundings(warm=20.0))


def test_withheld_soundings_change_nothing_but_the_verdict(day):
    table = soundings(warm=20.0)
    held = set(day.soundings.observations.table["station"][day.soundings.withheld])
    moved = table["station"].isin(held) & (table["variable"] == "temperature")
    table.loc[moved, "value"] += 2.0
    other = run(table)
    for name, members in day.analyses.items():
        assert torch.equal(other.analyses[name], members), name
    name = "GAP, calibrated"
    keys = ["station", "variable", "level"]  # an outlier may be judged in one and not in the other
    found, moved = (d.verdicts[name].table.set_index(keys)["departure"] for d in (day, other))
    by_two = (moved - found).dropna().xs("temperature", level="variable")
    assert len(by_two) > 15
    np.testing.assert_allclose(by_two, 2.0, atol=1e-3)


def test_a_biased_simulator_rejects_good_soundings_and_calibration_keeps_them(day):
    # 20 K are 6 to 7 spreads: against the simulator's climate most temperatures are outliers.
    assert day.counts["rejected, as it is"] > 50 > 5 > day.counts["rejected, calibrated"]
    latitude = np.abs(np.array(GRID.latitude)) < 70
    # 32 places with 3 K of weather each, that the model takes to be correlated: to one spread.
    np.testing.assert_allclose(day.calibration.bias[6:9][:, latitude].mean(1), 20, atol=3)
    assert abs(day.calibration.bias[:6]).max() < 8
    table = day.table()["temperature"]
    assert table["climatology, as it is"] == pytest.approx(1.0)
    for method in ("climatology", "GAP"):
        assert table[f"{method}, calibrated"] < 0.5 * table[f"{method}, as it is"], method
    assert table["optimal interpolation, calibrated"] < 0.5


def test_the_page_is_whole(day, tmp_path):
    text = report.write(tmp_path / "r.html", day, None).read_text()
    assert text.count("data:image/png;base64") == 6 and "http" not in text.split("<body>")[1]
    for words in ("Withheld soundings", "GAP, calibrated", "rejected, as it is", "amplitude"):
        assert words in text


def test_a_state_on_pressure_levels_comes_to_sigma_at_the_models_ground():
    # The standard atmosphere, ground at 1500 m: 845.56 hPa; T there 278.4 K.
    levels = np.array([10, 50, 100, 200, 300, 400, 500, 600, 700, 800, 850, 900, 950, 1000.0])
    temperature = np.maximum(288.15 * (levels / 1013.25) ** 0.190263, 216.65)
    height = 288.15 / 0.0065 * (1 - (levels / 1013.25) ** 0.190263)
    shape = np.ones((1, 8, 16))
    columns = {"temperature": temperature, "geopotential": 9.80665 * height}
    columns |= {name: np.log(levels) for name in NAMES if name != "temperature"}
    fields = {name: value[:, None, None] * shape for name, value in columns.items()}
    static = WORLD.static.copy()
    static[0, 2:4] = 1500 * 9.80665
    own = replace(WORLD, static=static)
    state = on_sigma(fields, levels, own)
    np.testing.assert_allclose(state[-1, 3].numpy(), 84556, rtol=1e-3)
    np.testing.assert_allclose(state[-1, 0].numpy(), 101325, rtol=1e-3)
    np.testing.assert_allclose(state[0, 3].numpy(), np.log(0.2 * 845.56), atol=2e-3)
    back = to_pressure(state, own, ["temperature@850", "u_component_of_wind@400"])
    np.testing.assert_allclose(back[1].numpy(), np.log(400), atol=2e-3)
    np.testing.assert_allclose(back[0, 0].numpy(), temperature[10], atol=1.0)
    moved = on_sigma({n: v[::-1] for n, v in fields.items()}, levels[::-1], own)
    torch.testing.assert_close(moved, state)


def test_a_state_is_reconstructed_better_from_more_columns(tmp_path):
    signs = torch.tensor([1.0, -1.0] * 4 + [1.0] * 5)
    z = 1.5 * signs[:, None, None].expand(1, *WORLD.shape)
    truth = Calibration.none(WORLD).physical(z, WORLD, TIME)[0]
    options = {"sampling": Sampling(steps=3), "members": 3, "fractions": (0.1, 0.4)}
    state = RealState(truth, TIME, WORLD, prior(), **options, sample=sample()).run()
    table = state.table()
    assert len(table) == 12
    few, many = (table.loc[f].drop(columns="spread/error") for f in (0.1, 0.4))
    np.testing.assert_allclose(few.loc["climatology, as it is"], 1.0)
    name, seen = "optimal interpolation, as it is", ["u_component_of_wind", "temperature"]
    assert many.loc[name, seen].mean() < few.loc[name, seen].mean() < 0.5
    # A constant shift of the climate is a bias: calibration finds it from either network.
    assert few.loc["climatology, calibrated", seen].mean() < 0.3
    text = report.write(tmp_path / "s.html", None, state).read_text()
    assert text.count("data:image/png;base64") == 3
    for words in ("13 (10%), 51 (40%)", "3 members, seed 0", "geopotential@500 (m)", "Spread over"):
        assert words in text, words
    _errors_in_units(state)


def _errors_in_units(state: RealState) -> None:
    """By hand; the spread is what the error of a mean of three would be."""
    label = "temperature@850"
    found = state.fields([label]).set_index(["fraction", "method"]).loc[(0.4, "GAP, as it is")]
    truth, members = (
        to_pressure(x, WORLD, [label])[..., 0, :, :].double()
        for x in (state.truth, state.analyses[0.4, "GAP, as it is"])
    )
    latitude = torch.deg2rad(torch.tensor(GRID.latitude)).cos()[:, None].expand(8, 16)
    for name, square in {
        "error": (members.mean(0) - truth) ** 2,
        "spread": 4 / 3 * members.var(0),
    }.items():
        expected = float((square * latitude).sum() / latitude.sum()) ** 0.5
        assert found[name] == pytest.approx(expected, rel=2e-2), name
    alone = state.fields([label]).set_index("method").loc["climatology, calibrated", "spread"]
    assert alone.isna().all() and np.isnan(state.table()["spread/error"].iloc[0])


@pytest.mark.skipif(not ERA5.exists(), reason=f"no {ERA5}")
def test_the_real_state_keeps_its_heights_on_the_models_levels():
    """Made of eight sigma levels, they are those of the state's own 37 pressure levels."""
    own = checkpoint.load(ROOT / "checkpoints" / "unet_small.speedy-t21-v4").world
    state, time = read_state(ERA5, own)
    assert time == pd.Timestamp("1959-01-02")
    labels = ["geopotential@500", "geopotential@850", "temperature@850"]
    with xr.open_dataset(ERA5) as file:
        wanted = [
            file[n].squeeze(drop=True).sel(level=int(p)).transpose("latitude", ...).values
            for n, p in (label.split("@") for label in labels)
        ]
    off = (to_pressure(state, own, labels) - torch.from_numpy(np.stack(wanted))).square()
    area = torch.from_numpy(own.grid.area_weights)[:, None]
    rms = ((off * area).sum((1, 2)) / (area.sum() * 64)).sqrt() / torch.tensor(
        [9.80665, 9.80665, 1]
    )
    assert (rms < torch.tensor([8.0, 5.0, 1.0])).all(), rms


def test_the_command_writes_a_page_and_tables(tmp_path, capsys):
    path, out = tmp_path / "soundings.csv", tmp_path / "out"
    soundings(12).to_csv(path, index=False)
    options = ["--prior", str(stored(tmp_path / "p")), "--members", "2", "--steps", "2"]
    code = cli.main(["real-day", "--soundings", str(path), *options, "--output", str(out)])
    shown = capsys.readouterr().out
    assert code == 0 and "GAP, calibrated" in shown and "stations withheld" in shown
    assert (out / "report.html").stat().st_size > 50000
    table = pd.read_parquet(out / "withheld.parquet")
    assert table["station"].nunique() == 2 and table["method"].nunique() == 4
    assert Observations(pd.read_parquet(out / "soundings.parquet")).table["station"].nunique() == 12


def test_the_command_refuses_by_name(tmp_path, capsys):
    assert cli.main(["real-day"]) == 2
    assert "give --soundings FILE.bufr" in capsys.readouterr().err
    model = ["--prior", str(stored(tmp_path / "p"))]
    assert cli.main(["real-day", "--soundings", "none.bufr", *model]) == 2
    assert "no observation file 'none.bufr'" in capsys.readouterr().err
    (tmp_path / "state.nc").write_text("not NetCDF")
    assert cli.main(["real-day", "--state", str(tmp_path / "state.nc"), *model]) == 2
    assert "cannot read a state" in capsys.readouterr().err
