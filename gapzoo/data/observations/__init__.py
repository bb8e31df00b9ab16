"""Observations: the table, its checks and readers, networks, and the operators H with H^T."""

from gapzoo.data.observations.columns import (
    STANDARD_ERRORS,
    ColumnStations,
    simulate,
    standard_errors,
    station_columns,
)
from gapzoo.data.observations.operators import (
    LinearObservationOperator,
    build_operator,
    operator_for,
)

__all__ = [
    "STANDARD_ERRORS",
    "ColumnStations",
    "LinearObservationOperator",
    "build_operator",
    "operator_for",
    "simulate",
    "standard_errors",
    "station_columns",
]
