import numpy as np
import pandas as pd
import pytest
import torch

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.data.observations import (
    Observations,
    operator_for,
    read_observations,
    simulate,
    standard_errors,
    station_columns,
    superob,
    thin,
)

GRID = Grid(np.arange(12) * 15 - 82.5, np.arange(24) * 15.0)
CHANNELS = Channels(
    ["temperature@200", "temperature@500", "temperature@850", "surface_pressure"], "pressure"
)


def rows(**changes) -> pd.DataFrame:
    table = {
        "time": pd.to_datetime(["2006-01-01", "2006-01-01T06:00", "2006-01-02"], format="ISO8601"),
        "latitude": [10.0, -90.0, 52.5],
        "longitude": [-20.0, 360.0, 13.0],
        "level": [500.0, np.nan, 850.0],
        "variable": ["temperature", "surface_pressure", "temperature"],
        "value": [260.0, 101000.0, 280.0],
        "error": [1.0, 100.0, 2.0],
        "type": ["sonde", "synop", "sonde"],
        "station": ["01", "02", "03"],
    }
    return pd.DataFrame({**table, **changes})


def test_defaults_and_longitudes():
    table = rows().drop(columns=["error", "type", "station"])
    observations = Observations(table)
    assert observations.table["error"].tolist() == [1.0, 100.0, 1.0]
    assert observations.table["longitude"].tolist() == [340.0, 0.0, 13.0]
    assert len(observations[1:]) == 2 and observations.has_levels
    window = observations.between("2006-01-01T06:00", "2006-01-02")
    assert window.table["variable"].tolist() == ["surface_pressure"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variable": ["temperature", "surface_presure", "x"]}, "row 1.*did you mean 'surface_p"),
        ({"value": [1.0, np.nan, np.nan]}, r"row 1: value nan; drop the row.*2 such rows"),
        ({"value": [1.0, 2.0, "warm"]}, "row 2: value 'warm' is no number"),
        ({"latitude": [0.0, -90.5, 0.0]}, "row 1: latitude -90.5; give -90 to 90"),
        ({"longitude": [361.0, 0.0, 0.0]}, "row 0: longitude 361.0; give -180 to 360"),
        ({"error": [1.0, 1.0, 0.0]}, "row 2: error 0.0; give a positive"),
        ({"level": [-5.0, np.nan, 1.0]}, "row 0: level -5.0; give a positive"),
        ({"time": ["2006-01-01", "soon", "2006-01-02"]}, "row 1: time 'soon' is no time"),
    ],
)
def test_bad_rows_are_named(changes, message):
    with pytest.raises(GapzooError, match=message):
        Observations(rows(**changes))


def test_missing_column_and_level_kind():
    with pytest.raises(GapzooError, match="lack the column 'value'"):
        Observations(rows().drop(columns="value"))
    with pytest.raises(GapzooError, match="did you mean 'sigma'"):
        Observations(rows(), "sigmas")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".nc"])
def test_files_round_trip(tmp_path, suffix):
    observations = Observations(rows(level=[0.5, np.nan, 0.85]), "sigma")
    path = tmp_path / f"table{suffix}"
    observations.write(path)
    back = read_observations(path)
    pd.testing.assert_frame_equal(back.table, observations.table)
    assert back.level_kind == "sigma"


def test_a_table_that_does_not_say_its_levels_is_not_guessed(tmp_path):
    sigma, path = rows(level=[0.5, np.nan, 0.85]), tmp_path / "table.csv"
    sigma.to_csv(path, index=False)
    with pytest.raises(GapzooError, match=r"table\.csv: no level is above 1.*--level-kind sigma"):
        read_observations(path)
    assert read_observations(path, level_kind="sigma").level_kind == "sigma"
    assert read_observations(path, level_kind="pressure").level_kind == "pressure"
    sigma.assign(level_kind=["sigma", "sigma", "pressure"]).to_csv(path, index=False)
    with pytest.raises(GapzooError, match="levels of sigma and pressure"):
        read_observations(path)
    for level in ([500.0, np.nan, 1.0], np.nan):
        rows(level=level).to_csv(path, index=False)
        assert read_observations(path).level_kind == "pressure"


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(GapzooError, match="no observation file"):
        read_observations(tmp_path / "none.csv")
    for suffix in (".parquet", ".nc"):
        path = tmp_path / f"rubbish{suffix}"
        path.write_bytes(b"not a table")
        with pytest.raises(GapzooError, match="rubbish"):
            read_observations(path)
    (tmp_path / "a.cvs").write_text("x")
    with pytest.raises(GapzooError, match=r"did you mean '\.csv'"):
        read_observations(tmp_path / "a.cvs")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(GapzooError, match="comma-separated"):
        read_observations(tmp_path / "empty.csv")


def test_simulated_network_as_a_table_observes_the_same():
    operator = station_columns(GRID, CHANNELS, 0.1, 0)
    truth = 250 + torch.randn(operator.shape)
    errors = standard_errors(operator, CHANNELS)
    y = simulate(truth, operator, errors, 1)
    table = Observations.from_operator(operator, CHANNELS, y, errors, "2006-01-01")
    again = operator_for(table, GRID, CHANNELS)
    torch.testing.assert_close(again(truth), operator(truth))
    np.testing.assert_allclose(table.table["value"], y.numpy())
    joined = Observations.concatenate([table, table[:5]])
    assert len(joined) == len(table) + 5


def test_pressure_levels_become_sigma():
    sigma = Observations(rows()).on_sigma(np.array([80000.0, 1e5, 1e5]))
    np.testing.assert_allclose(sigma.table["level"], [0.625, np.nan, 0.85])
    with pytest.raises(GapzooError, match="on_sigma"):
        operator_for(Observations(rows()), GRID, Channels(["temperature@0.5"], "sigma"))


def test_check_gives_each_rejected_row_a_reason():
    table = pd.concat([rows(), rows()], ignore_index=True)
    table.loc[3, ["variable", "value"]] = ["specific_humidity", 0.01]
    table.loc[4, ["value", "station"]] = [1e5 + 5000, "09"]  # far from the background
    table.loc[5, "level"] = 100.0
    table = pd.concat([table, table.iloc[[0]], rows(value=[400.0, 1e5, 280.0]).iloc[[0]]])
    observations = Observations(table)
    background = torch.tensor([220.0, 260.0, 280.0, 101000.0])[:, None, None].expand(4, 12, 24)
    good, report = observations.check(GRID, CHANNELS, background, torch.full((4, 12, 24), 10.0))
    assert len(good) + len(report) == 8 and good.table["value"].tolist() == [260, 101000, 280]
    assert report["row"].tolist() == [3, 4, 5, 6, 7]
    expected = ["not among", "departs from the background", "outside 200 to 850", "duplicate"]
    for reason, text in zip(report["reason"], [*expected, "not plausible"], strict=True):
        assert text in reason
    # (105000 - 101000) / sqrt(100^2 + 10^2)
    assert "39.8 standard deviations" in report["reason"][1]
    band = Grid(np.arange(5) * 10.0 - 20, np.arange(24) * 15.0)
    _, report = Observations(rows()).check(band, CHANNELS)
    assert report["reason"].tolist() == ["outside the grid"] * 2
    _, report = Observations(rows(), "sigma").check(GRID, CHANNELS)
    assert report["reason"].tolist() == ["level is not of kind pressure"] * 2


def test_thinning_keeps_the_best_of_a_box_and_superob_averages():
    table = rows(
        time="2006-01-01", latitude=[10.1, 10.3, 11.4], longitude=[1.0, 1.4, 50.0], level=500.0,
        variable="temperature", value=[260.0, 262.0, 250.0], error=[2.0, 1.0, 1.0],
    )  # fmt: skip
    observations = Observations(table)
    assert thin(observations, 2.0).table["value"].tolist() == [262.0, 250.0]
    merged = superob(observations, 2.0).table
    # Weights 1/4 and 1: value (260/4 + 262) / 1.25, variance 1 / 1.25.
    np.testing.assert_allclose(merged["value"], [261.6, 250.0])
    np.testing.assert_allclose(merged["error"], [0.8**0.5, 1.0])
    np.testing.assert_allclose(merged["longitude"], [1.32, 50.0], atol=1e-4)
    np.testing.assert_allclose(merged["level"], 500.0)
    full = superob(observations, 2.0, correlation=1.0).table
    np.testing.assert_allclose(full["error"][0], 1.6**0.5)
    assert len(thin(observations, 0.1)) == 3
