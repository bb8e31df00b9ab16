"""ERA5 as WeatherBench 2 keeps it: a Zarr store, local or in the cloud, of any of its grids.

Variables have gapzoo's own names there. Coarse stores have longitude before latitude and run from
south to north, 1440x721 the other way round; sea surface temperature is missing over land;
precipitation and radiation gather over the hours in their names. The public bucket
gs://weatherbench2 is read without credentials (pip install 'gapzoo[cloud]').
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from gapzoo.core import GapzooError
from gapzoo.data import SOURCES
from gapzoo.data.boundary import SOLAR
from gapzoo.data.cf import Dataset
from gapzoo.data.gridded import GriddedSource
from gapzoo.data.prescribed import Entries

ATMOSPHERE = (
    "geopotential",
    "temperature",
    "u_component_of_wind",
    "v_component_of_wind",
    "specific_humidity",
)
SURFACE = (
    "2m_temperature",
    "mean_sea_level_pressure",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
)
FORCINGS = ("sea_surface_temperature", "sea_ice_cover", SOLAR)
LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
COPERNICUS = "Copernicus licence; contains modified Copernicus Climate Change Service information"
DIMENSIONS = ("time", "longitude", "latitude")


@SOURCES.register("weatherbench2")
class WeatherBench2Source(GriddedSource):
    """A store of WeatherBench 2's layout.

    Args:
        path: of the store, such as ``gs://weatherbench2/datasets/era5/....zarr``.
        variables: of the state; the usual 69 channels by default.
        levels: hPa.
        forcings: as ``GriddedSource`` takes them.
        license: terms of the data.
        options: of ``xarray.open_dataset``.
        others: as ``GriddedSource`` takes them.
    """

    description = "ERA5 from WeatherBench 2"

    def __init__(
        self,
        *,
        path: str,
        variables: Entries = ATMOSPHERE + SURFACE,
        levels: Sequence[float] | None = LEVELS,
        forcings: Entries = FORCINGS,
        license: str = COPERNICUS,
        options: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        if options is None and path.startswith("gs://"):
            options = {"storage_options": {"token": "anon"}}
        super().__init__(
            path=path,
            variables=variables,
            levels=levels,
            forcings=forcings,
            license=license,
            engine="zarr",
            options=options,
            **others,
        )

    @cached_property
    def data(self) -> Dataset:
        """The store, opened; one without its dimensions is refused."""
        data = super().data
        missing = [d for d in DIMENSIONS if d not in data.data.dims]
        if missing:
            raise GapzooError(
                f"{data.where} is not laid out as WeatherBench 2 is: it has no {missing[0]}; read "
                "it with source: cf"
            )
        return data
