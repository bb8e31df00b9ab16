"""Labels, order, selection of channels; unknown ones name the nearest."""

import pytest
from worlds import expect

from gapzoo.core import VARIABLES, Channel, Channels, GapzooError

LABELS = ["temperature@0.835", "temperature@0.95", "u_component_of_wind@0.95", "surface_pressure"]


@pytest.fixture
def channels():
    return Channels(LABELS, "sigma")


def test_labels_survive_a_round_trip(channels):
    assert channels.labels == LABELS
    assert Channels(channels.labels, "sigma") == channels
    assert Channel.parse("geopotential@500") == Channel("geopotential", 500.0)
    assert Channel("temperature", 0.835).short == "t0.835"
    assert Channel("surface_pressure").units == "Pa"
    assert Channel("made_up", 3.0).label == "made_up@3" and Channel("made_up").units == "1"


def test_the_kind_of_level_is_part_of_what_channels_are(channels):
    other = Channels(LABELS, "pressure")
    assert other != channels and len({other, channels, Channels(LABELS, "sigma")}) == 2


def test_positions(channels):
    assert channels.index("surface_pressure") == 3
    assert channels.index(Channel("temperature", 0.95)) == 1
    assert channels.of("temperature") == [0, 1]
    assert channels.positions("temperature") == [0, 1]
    assert channels.positions(["surface_pressure", "temperature@0.95"]) == [1, 3]
    assert channels.positions([]) == []
    assert channels[1:].labels == LABELS[1:] and channels[1:].level_kind == "sigma"


def test_selection_keeps_the_own_order(channels):
    chosen = channels.select(["surface_pressure", "temperature@0.95", "u_component_of_wind"])
    assert chosen.labels == LABELS[1:]
    assert channels.select(None) is channels


def test_unknown_names_are_refused_with_the_nearest(channels):
    with expect(GapzooError, "no channel 'temperature@0.96'", "temperature@0.95"):
        channels.index("temperature@0.96")
    with expect(GapzooError, "'temprature'; did you mean 'temperature'?"):
        channels.select(["temprature"])
    with expect(GapzooError, "no variable 'specific_humidity'"):
        channels.of("specific_humidity")
    with expect(GapzooError, "'temperature@high': 'high' is no level"):
        Channels(["temperature@high"])
    with expect(GapzooError, "level kind 'presure'; did you mean 'pressure'?"):
        Channels(LABELS, "presure")
    with expect(GapzooError, "named twice"):
        Channels(["temperature@500", "temperature@500.0"])


def test_every_variable_of_the_table_has_what_files_need():
    for name, variable in VARIABLES.items():
        assert variable.name == name and variable.units and variable.standard_name
    shorts = [v.short for v in VARIABLES.values()]
    assert len(set(shorts)) == len(shorts)
