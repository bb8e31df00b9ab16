"""Tables of scores fit a terminal: no label is folded, leads are left out instead."""

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from gapzoo.report.scores import apart, tables

FIELDS = ("u_component_of_wind", "mean_sea_level_pressure")


def scores(leads: int = 10) -> xr.Dataset:
    """Two fields, one with levels, two metrics, two regions, 1..n days."""
    lead = np.arange(1, leads + 1) * np.timedelta64(24, "h")
    axes = {"region": ["global", "southern_extratropics"], "metric": ["rmse", "spread_skill"]}
    axes |= {"prediction_timedelta": lead}
    plain = xr.DataArray(np.arange(4.0 * leads).reshape(2, 2, leads) - 1234.5, axes)
    levels = plain.expand_dims(level=[0.095, 0.835])
    map_ = plain.isel(metric=0, drop=True).rename("m")
    found = {FIELDS[0]: levels, FIELDS[1]: plain, f"{FIELDS[1]}.rank_histogram": map_}
    return xr.Dataset(found, attrs={"initial_times": 6})


@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_is_folded(width, capsys):
    console = Console(width=width)
    for table in tables(scores(), width=width):
        console.print(table)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.startswith("│")]
    names = [f"{FIELDS[0]}@0.095", f"{FIELDS[0]}@0.835", FIELDS[1]]
    assert [row.split("│")[1].strip() for row in rows] == names * 4
    assert "spread_skill, southern_extratropics: 6 initial times" in [x.strip() for x in lines]


def test_leads_are_spread_from_first_to_last():
    heads = [[c.header for c in next(tables(scores(), width=w)).columns[1:]] for w in (60, 80, 200)]
    assert heads[0] == ["1 d", "5 d", "10 d"] or heads[0] == ["1 d", "10 d"]
    assert all(h[0] == "1 d" and h[-1] == "10 d" for h in heads)
    assert len(heads[0]) < len(heads[1]) < len(heads[2]) == 8


def test_scores_with_axes_of_their_own_are_named():
    assert apart(scores()) == [f"{FIELDS[1]}.rank_histogram"]
