"""Observations: the table, its checks and readers, networks, and the operators H with H^T."""

from gapzoo.data.observations.checks import check
from gapzoo.data.observations.columns import (
    STANDARD_ERRORS,
    ColumnStations,
    simulate,
    standard_errors,
    station_columns,
)
from gapzoo.data.observations.form import Observations
from gapzoo.data.observations.operators import (
    LinearObservationOperator,
    build_operator,
    operator_for,
)
from gapzoo.data.observations.readers import read_observations
from gapzoo.data.observations.thinning import superob, thin

__all__ = [
    "STANDARD_ERRORS",
    "ColumnStations",
    "LinearObservationOperator",
    "Observations",
    "build_operator",
    "check",
    "operator_for",
    "read_observations",
    "simulate",
    "standard_errors",
    "station_columns",
    "superob",
    "thin",
]
