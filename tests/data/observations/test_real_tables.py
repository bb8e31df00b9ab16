"""Real reports and real station lists, where they are there."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gapzoo.core import Channels, Grid
from gapzoo.data.observations import Observations, superob, thin

REAL = Path(__file__).parents[3].parent / "shared" / "data"
METAR, IGRA = REAL / "metar_2020-01.parquet", REAL / "igra2-station-list.txt"


def reports() -> Observations:
    """METARs as a table: temperature, and wind where its direction is known."""
    raw = pd.read_parquet(METAR)
    angle = np.deg2rad(raw["windDir"])
    values = {
        "2m_temperature": raw["temperature"],
        "10m_u_component_of_wind": -raw["windSpeed"] * np.sin(angle),
        "10m_v_component_of_wind": -raw["windSpeed"] * np.cos(angle),
    }
    names = {"timeObs": "time", "stationName": "station", "elevation": "height"}
    place = raw[["latitude", "longitude", *names]].rename(columns=names).assign(type="metar")
    parts = [place.assign(variable=n, value=v)[v.notna()] for n, v in values.items()]
    return Observations(pd.concat(parts))


@pytest.mark.skipif(not METAR.exists(), reason="no shared/data/metar_2020-01.parquet here")
def test_real_reports_are_checked_and_thinned():
    observations = reports()
    table = observations.table
    assert len(observations) > 20000 and set(table["type"]) == {"metar"}
    assert table.groupby("variable")["error"].first().to_dict() == {
        "2m_temperature": 2.0, "10m_u_component_of_wind": 3.0, "10m_v_component_of_wind": 3.0,
    }  # fmt: skip
    grid = Grid(np.arange(32) * 5.625 - 87.1875, np.arange(64) * 5.625)
    channels = Channels(sorted(set(table["variable"])), "pressure")
    good, rejected = observations.check(grid, channels)
    assert len(good) + len(rejected) == len(observations) and len(good) > 0.95 * len(observations)
    assert (rejected["reason"] != "").all()
    day = good.between("2020-01-01", "2020-01-02")
    few, averaged = thin(day, 5.0, hours=6.0), superob(day, 5.0, hours=6.0, correlation=0.3)
    assert len(few) == len(averaged) < 0.5 * len(day)
    own = set(zip(day.table["station"], day.table["time"], day.table["value"], strict=True))
    kept = set(zip(few.table["station"], few.table["time"], few.table["value"], strict=True))
    assert kept <= own
    # Averages over a box lie within what it holds.
    assert averaged.table["value"].between(day.table["value"].min(), day.table["value"].max()).all()


@pytest.mark.skipif(not IGRA.exists(), reason="no shared/data/igra2-station-list.txt here")
def test_drawn_radiosondes_lie_as_the_real_ones_do():
    """Shares by latitude of IGRA's active stations against a network drawn on the model's land."""
    import gapzoo
    from gapzoo.data.observations.networks import NETWORKS

    columns = [(12, 20), (72, 76), (77, 81), (82, 88)]
    names = ["latitude", "first", "last", "count"]
    real = pd.read_fwf(IGRA, colspecs=columns, names=names)
    real = real[(real["last"] >= 2020) & (real["latitude"].abs() <= 90)]["latitude"]
    world = gapzoo.load("unet_small.speedy-t21-v4").world
    land = world.static[world.static_channels.index("land_sea_mask")]
    drawn = NETWORKS.build(
        "radiosondes", grid=world.grid, channels=world.channels, generator=0, land=land
    )
    latitude = drawn.latitude.numpy()[:416]
    assert 300 < len(real) < 1500
    for low, high in ((20, 90), (-20, 20), (-90, -20)):
        shares = [((values > low) & (values <= high)).mean() for values in (real, latitude)]
        assert abs(shares[0] - shares[1]) < 0.15, (low, shares)
