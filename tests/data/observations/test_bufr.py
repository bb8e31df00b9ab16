"""Messages that the test encodes itself; real soundings and stations where they are there."""

from pathlib import Path

import numpy as np
import pytest

from gapzoo.core import GapzooError
from gapzoo.data.observations import read_observations

eccodes = pytest.importorskip("eccodes", reason="needs the extra bufr")
REAL = Path(__file__).parents[3].parent / "shared" / "data"
CLOCK = {"year": 2008, "month": 12, "day": 8, "hour": 12, "minute": 0}


def encode(path: Path, category: int, descriptors: list[int], keys: dict, levels=None, subsets=1):
    """Append a message; values of ``keys`` are numbers, or lists of one a subset."""
    handle = eccodes.codes_bufr_new_from_samples("BUFR4")
    head = {"dataCategory": category, "masterTablesVersionNumber": 28}
    head |= {"compressedData": int(subsets > 1), "numberOfSubsets": subsets}
    for key, value in head.items():
        eccodes.codes_set(handle, key, value)
    if levels is not None:
        kind = "inputExtendedDelayedDescriptorReplicationFactor"
        kind = kind if 309052 in descriptors else "inputDelayedDescriptorReplicationFactor"
        factors = levels if isinstance(levels, list) else [levels]
        eccodes.codes_set_array(handle, kind, factors)
    eccodes.codes_set_array(handle, "unexpandedDescriptors", descriptors)
    for key, value in keys.items():
        setter = eccodes.codes_set_array if isinstance(value, list) else eccodes.codes_set
        setter(handle, key, value)
    eccodes.codes_set(handle, "pack", 1)
    with path.open("ab") as file:
        eccodes.codes_write(handle, file)
    eccodes.codes_release(handle)


def sounding(path: Path, block: int, latitude: float) -> None:
    """Two levels in WMO's older template: the ground, and 500 hPa without a dew point."""
    place = {"blockNumber": block, "stationNumber": 7, "latitude": latitude, "longitude": -78.08}
    ground = {"pressure": 100300.0, "verticalSoundingSignificance": 68, "windDirection": 270}
    ground |= {"airTemperature": 283.1, "dewpointTemperature": 283.1, "windSpeed": 10.0}
    aloft = {"pressure": 50000.0, "verticalSoundingSignificance": 32, "airTemperature": 253.1}
    aloft |= {"nonCoordinateGeopotential": 54000.0}
    keys = {**CLOCK, **place, "heightOfStation": 26}
    keys |= {f"#1#{k}": v for k, v in ground.items()} | {f"#2#{k}": v for k, v in aloft.items()}
    encode(path, 2, [309007], keys, levels=2)


def values(observations, **where) -> list[float]:
    table = observations.table
    for name, wanted in where.items():
        table = table[table[name] == wanted]
    return table["value"].tolist()


def test_a_kind_of_levels_is_refused(tmp_path):
    sounding(tmp_path / "own.bufr", 4, 58.47)
    with pytest.raises(GapzooError, match=r"BUFR knows its own levels.*drop --level-kind"):
        read_observations(tmp_path / "own.bufr", level_kind="sigma")


def test_soundings_become_observations(tmp_path):
    path = tmp_path / "own.bufr"
    sounding(path, 4, 58.47)
    sounding(path, 71, -90.0)
    found = read_observations(path)
    table = found.table
    assert sorted(set(table["station"])) == ["04007", "71007"]
    assert set(table["type"]) == {"radiosonde"} and table["time"].nunique() == 1
    assert table["longitude"].unique().tolist() == [281.92]
    assert sorted(set(table["latitude"])) == [-90.0, 58.47]
    assert values(found, variable="temperature", station="04007") == pytest.approx([283.1, 253.1])
    assert values(found, variable="geopotential", level=500.0) == [54000.0] * 2
    # From the west at 10 m/s.
    np.testing.assert_allclose(values(found, variable="u_component_of_wind"), 10.0)
    np.testing.assert_allclose(values(found, variable="v_component_of_wind"), 0, atol=1e-12)
    # Saturated at 9.95 C: e = 12.23 hPa (tables), so q = 0.622 12.23 / (1003 - 0.378 12.23).
    humid = values(found, variable="specific_humidity")
    np.testing.assert_allclose(humid, 0.00762, atol=1e-5)
    assert values(found, variable="surface_pressure") == [100300.0] * 2
    assert table.loc[table["variable"] == "surface_pressure", "height"].tolist() == [26.0] * 2
    assert len(found) == 2 * (2 + 1 + 1 + 1 + 1 + 1)


def test_the_newer_template_drifts_in_place_and_time(tmp_path):
    path = tmp_path / "drift.bufr"
    keys = {**CLOCK, "second": 30, "blockNumber": 10, "stationNumber": 393, "latitude": 52.0}
    keys |= {"longitude": 14.0, "heightOfStationGroundAboveMeanSeaLevel": 112.0}
    first = {"timePeriod": 0, "extendedVerticalSoundingSignificance": 131072, "pressure": 100000.0}
    second = {"timePeriod": 1800, "pressure": 30000.0, "latitudeDisplacement": 0.25}
    second |= {"longitudeDisplacement": -0.5, "nonCoordinateGeopotentialHeight": 9000}
    for number, level in enumerate(({**first, "airTemperature": 280.0}, second), 1):
        keys |= {f"#{number}#{k}": v for k, v in level.items()}
    keys["#2#airTemperature"] = 225.0
    encode(path, 2, [309052], keys, levels=[2])
    found = read_observations(path)
    table = found.table.set_index("variable")
    assert values(found, variable="surface_pressure") == [100000.0]
    aloft = table[table["level"] == 300.0].loc["temperature"]
    assert (aloft["latitude"], aloft["longitude"], aloft["value"]) == (52.25, 13.5, 225.0)
    assert str(aloft["time"]) == "2008-12-08 12:30:30" and aloft["height"] == 112.0
    np.testing.assert_allclose(values(found, variable="geopotential"), 9000 * 9.80665)


@pytest.mark.parametrize("packed", [True, False])
def test_stations_of_several_subsets(tmp_path, packed):
    path = tmp_path / "synop.bufr"
    keys = {"latitude": [50.0, -10.0], "longitude": [8.0, 200.0 - 360], "blockNumber": [10, 91]}
    keys |= {"stationNumber": [1, 2], "heightOfStation": [100, 3], "windDirectionAt10M": [180, 0]}
    keys |= {"windSpeedAt10M": [5.0, 0.0], "airTemperatureAt2M": [270.0, 300.0]}
    keys |= {"nonCoordinatePressure": [99000.0, eccodes.CODES_MISSING_DOUBLE]}
    keys |= {k: [v, v] for k, v in CLOCK.items()}
    if packed:
        encode(path, 0, [307005], keys, subsets=2)
    else:
        for n in range(2):
            encode(path, 0, [307005], {k: v[n] for k, v in keys.items()})
    found = read_observations(path)
    assert values(found, variable="2m_temperature") == [270.0, 300.0]
    assert values(found, variable="surface_pressure") == [99000.0]
    north = values(found, variable="10m_v_component_of_wind")
    np.testing.assert_allclose(north, [5.0, 0.0], atol=1e-12)
    table = found.table.drop_duplicates("station")
    assert table["longitude"].tolist() == [8.0, 200.0] and set(table["type"]) == {"synop"}
    assert table["station"].tolist() == ["10001", "91002"] and table["level"].isna().all()
    assert table["height"].tolist() == [100.0, 3.0]


def test_aircraft_get_the_pressure_of_their_flight_level(tmp_path):
    path = tmp_path / "amdar.bufr"
    keys = {**CLOCK, "latitude": 40.0, "longitude": -60.0, "flightLevel": 10363.0}
    keys |= {"airTemperature": 220.0, "windDirection": 225, "windSpeed": 40.0}
    encode(path, 4, [301011, 301012, 301021, 7010, 12101, 11001, 11002], keys)
    found = read_observations(path)
    np.testing.assert_allclose(found.table["level"], 250.0, rtol=2e-4)
    np.testing.assert_allclose(values(found, variable="u_component_of_wind"), 40 * 0.5**0.5)
    assert set(found.table["type"]) == {"aircraft"}


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "own.bufr"
    sounding(path, 4, 58.47)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    with pytest.raises(GapzooError, match=r"own\.bufr: BUFR message 2 cannot be decoded"):
        read_observations(path)
    path.write_bytes(b"a table of something else")
    with pytest.raises(GapzooError, match="is it a BUFR file"):
        read_observations(path)


@pytest.mark.skipif(not (REAL / "temp.bufr").exists(), reason="no shared/data/temp.bufr here")
def test_real_soundings():
    found = read_observations(REAL / "temp.bufr")
    table = found.table
    assert table["station"].nunique() == 420 and set(table["type"]) == {"radiosonde"}
    assert (table["variable"] == "surface_pressure").sum() == 420
    first = table[(table["station"] == "71907") & (table["level"] == 850.0)]
    by_name = first.set_index("variable")["value"]
    assert by_name["temperature"] == pytest.approx(253.1) and by_name["geopotential"] == 12470.0
    # 9 m/s from 250 degrees.
    assert by_name["u_component_of_wind"] == pytest.approx(9 * np.sin(np.deg2rad(70)))
    assert by_name["v_component_of_wind"] == pytest.approx(9 * np.cos(np.deg2rad(70)))
    assert table["value"].notna().all() and len(found) > 70000


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "perf_synop.bufr").exists(), reason="no perf_synop.bufr here")
def test_real_stations():
    table = read_observations(REAL / "perf_synop.bufr").table
    assert set(table["type"]) == {"synop"} and table["station"].nunique() > 7000
    pressure = table[table["variable"] == "surface_pressure"]["value"]
    assert 90000 < pressure.median() < 102000
