"""SPEEDY (jcm 3.0.0) as ``advance``, ``carry``, ``encode`` and ``decode``; ``setup`` builds it.

Settings follow what was measured on this model: 8th-order hyperdiffusion (2.4 h), initial surface
pressure lowered to a global mean of 983.3 hPa, winds on the grid without the core's clipping.
The state is closed: u, v, T, q on 8 sigma levels and surface pressure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gapzoo.core import VARIABLES, Channel, Channels, GapzooError, Grid
from gapzoo.speedy.boundary import Ocean
from gapzoo.speedy.setup import STEP_MINUTES, built, climate
from gapzoo.speedy.winds import WindInverse

RADIATION_STEPS = 3
"""Shortwave radiation is computed at every third step, the first of a frame among them."""
INITIAL_PRESSURE = 98330.0
PROFILE = ("u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity")
SURFACE = ("2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind")
GRAMS_PER_M3_WATER = 1e6


@dataclass
class Run:
    """Where an integration stands: spectral state, physics carry, clock (all arrays, savable)."""

    dynamics: Any
    physics: Any
    time: pd.Timestamp


def start_jax(*, anywhere: bool = False) -> Any:
    """Import JAX quietly, with a compilation cache in the user's cache, on the CPU.

    The first call of a process decides where, unless ``JAX_PLATFORMS`` has.

    Args:
        anywhere: on a GPU where JAX finds one, which takes its plugin: ``jax[cuda13]`` (a driver
            from 580 on) or ``jax[cuda12]``, of the very version that jax has. Products of matrices
            stay in float32 there.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import jax
    except ModuleNotFoundError:
        raise GapzooError("SPEEDY needs the package jcm; pip install 'gapzoo[speedy]'") from None
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gapzoo" / "jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    config: Any = jax.config
    if config.jax_platforms is None:  # an empty text is JAX's own choice
        jax.config.update("jax_platforms", "" if anywhere else "cpu")
    if anywhere and jax.default_backend() != "cpu":  # its default there is TensorFloat-32
        jax.config.update("jax_default_matmul_precision", "highest")
    return jax


class SpeedyModel:
    """SPEEDY on the T21 (64x32) or T31 (96x48) Gaussian grid with 8 sigma levels.

    Args:
        truncation: 21 or 31.
        hours: length of a frame; frames are what ``advance`` returns. Rain over it is a channel
            where that has a name: 6, 12 or 24.
        parameters: changes to SPEEDY's physics, ``{"convection.trcnv": 8.0}``, for experiments
            with model error.
    """

    def __init__(
        self,
        truncation: int = 21,
        *,
        hours: int = 6,
        parameters: dict[str, float] | None = None,
    ) -> None:
        if truncation not in STEP_MINUTES:
            raise GapzooError(f"truncation {truncation}; SPEEDY here runs at 21 or 31")
        radiation = RADIATION_STEPS * STEP_MINUTES[truncation]
        if hours <= 0 or hours * 60 % radiation:
            raise GapzooError(
                f"frames of {hours} h; SPEEDY here needs a multiple of {radiation} min"
            )
        self.truncation, self.hours = truncation, hours
        self.steps = hours * 60 // STEP_MINUTES[truncation]
        rain = f"total_precipitation_{hours}hr"
        self.surface = (*SURFACE, rain) if rain in VARIABLES else SURFACE
        self._jax = start_jax()
        self._model = built(truncation, parameters or {})
        self._climate = climate(self._model.coords)

    @cached_property
    def grid(self) -> Grid:
        """The Gaussian grid, latitudes ascending."""
        axes = self._model.coords.horizontal
        return Grid(
            tuple(np.rad2deg(np.asarray(axes.latitudes, float))),
            tuple(np.rad2deg(np.asarray(axes.longitudes, float))),
        )

    @cached_property
    def channels(self) -> Channels:
        """33 prognostic channels, then the surface diagnostics."""
        sigma = np.round(np.asarray(self._model.coords.vertical.centers, float), 4)
        profile = [Channel(name, float(s)) for name in PROFILE for s in sigma]
        single = [Channel("surface_pressure"), *map(Channel, self.surface)]
        return Channels([*profile, *single], "sigma")

    @cached_property
    def sigma_edges(self) -> np.ndarray:
        """(9,) half levels, 0 at the top and 1 at the ground."""
        return np.asarray(self._model.coords.vertical.boundaries, float)

    @cached_property
    def surface_geopotential(self) -> np.ndarray:
        """(H, W) float32 in m2 s-2: of the spectral orography that the dynamics rest on.

        The file's own, on the grid, lies 200 m rms and up to 1400 m from it at T21.
        """
        from dinosaur.scales import units

        specs, horizontal = self._model.dycore.physics_specs, self._model.coords.horizontal
        height = np.asarray(horizontal.to_nodal(self._primitive.orography), np.float64).T
        one = specs.dimensionalize(specs.gravity_acceleration, units.meter**2 / units.second**2)
        return (height * float(one.m)).astype(np.float32)

    @property
    def prognostic(self) -> int:
        """Number of prognostic channels, the first ones of a frame."""
        return len(self.channels) - len(self.surface)

    def start(self, time: pd.Timestamp, seed: int) -> Run:
        """Isothermal rest with a seeded perturbation; discard at least 150 days after it."""
        jnp = self._jax.numpy
        state = self._model.initial_state(random_seed=seed)
        horizontal = self._model.coords.horizontal
        pressure = np.exp(np.asarray(horizontal.to_nodal(state.log_surface_pressure)))[0]
        mean = np.average(pressure.mean(0), weights=self.grid.area_weights) * self._p0
        shift = jnp.full((1, *pressure.shape), np.log(INITIAL_PRESSURE / mean), jnp.float32)
        raised = state.log_surface_pressure + horizontal.to_modal(shift)
        return self._fresh(state.replace(log_surface_pressure=raised), time)

    def restart(self, state: np.ndarray, time: pd.Timestamp) -> Run:
        """Begin from a state (C, H, W) whose first channels are the prognostic ones."""
        run = self._fresh(self.encode(state), time)
        return Run(run.dynamics, self._primed(run), run.time)

    def advance(self, run: Run, sst: np.ndarray) -> tuple[Run, np.ndarray]:
        """Integrate one frame for each row of ``sst``.

        Args:
            run: where to go on from; not changed.
            sst: (T, H, W) sea surface temperature in K, held during each frame.

        Returns:
            The run after T frames, and the frames (T, C, H, W) float32 in SI units.
        """
        jnp = self._jax.numpy
        field = jnp.asarray(np.swapaxes(sst, -1, -2), jnp.float32)
        clock = clock_of(run.time)
        (dynamics, physics), out = self._integrate(run.dynamics, run.physics, clock, field)
        after = Run(dynamics, physics, run.time + pd.Timedelta(hours=self.hours) * len(sst))
        return after, self._frames(*(np.asarray(x) for x in out))

    def carry(self, states: np.ndarray, time: pd.Timestamp, sst: np.ndarray) -> np.ndarray:
        """Integrate each of M states as ``restart`` and ``advance`` do, alone: to the bit the same.

        Args:
            states: (M, C, H, W) whose first channels are the prognostic ones.
            time: their valid time.
            sst: (T, H, W), one row a frame.

        Returns:
            (M, C, H, W) float32, the last frame of each.
        """
        field = self._jax.numpy.asarray(np.swapaxes(sst, -1, -2), self._jax.numpy.float32)
        clock = clock_of(time)

        def last(state: np.ndarray) -> np.ndarray:
            begun = self._fresh(self.encode(state), time)
            out = self._carry(begun.dynamics, begun.physics, clock, field)
            return self._frames(*(np.asarray(x) for x in out))[0]

        return np.stack([last(state) for state in states])

    def decode(self, run: Run) -> np.ndarray:
        """(33, H, W) prognostic channels of a run, without a step."""
        profile, pressure = self._nodal(run.dynamics)
        return self._frames(np.asarray(profile)[None], np.asarray(pressure)[None], None)[0]

    def encode(self, state: np.ndarray) -> Any:
        """Spectral state of the prognostic channels of (..., C, H, W); inverse of ``decode``."""
        state = state[..., : self.prognostic, :, :]
        if not np.isfinite(state).all():
            raise GapzooError("the state given to SPEEDY is not finite; look at its source")
        jnp, horizontal = self._jax.numpy, self._model.coords.horizontal
        turned = np.swapaxes(state, -1, -2).astype(np.float64)
        profile = turned[..., :-1, :, :]
        u, v, temperature, humidity = np.split(profile, 4, axis=-3)
        vorticity, divergence = self._winds(u / self._speed, v / self._speed)
        log_pressure = np.log(turned[..., -1:, :, :] / self._p0)
        reference = np.asarray(self._primitive.reference_temperature)[:, None, None]
        modal = partial(_to_modal, horizontal, jnp)
        return self._template.replace(
            vorticity=jnp.asarray(vorticity),
            divergence=jnp.asarray(divergence),
            temperature_variation=modal(temperature - reference),
            log_surface_pressure=modal(log_pressure),
            tracers={"specific_humidity": modal(humidity)},
        )

    @cached_property
    def _template(self) -> Any:
        return self._model.initial_state(random_seed=0)

    @property
    def _p0(self) -> float:
        return float(self._model.dycore.constants.p0)

    @property
    def _primitive(self) -> Any:
        return self._model.dycore.primitive

    @cached_property
    def _speed(self) -> float:
        """Metres a second in one non-dimensional unit of wind."""
        from dinosaur.scales import units

        one = self._model.dycore.physics_specs.dimensionalize(1.0, units.meter / units.second)
        return float(one.m)

    @cached_property
    def _winds(self) -> WindInverse:
        from dinosaur.spherical_harmonic import vor_div_to_uv_nodal

        horizontal = self._model.coords.horizontal
        forward = partial(vor_div_to_uv_nodal, horizontal, clip=False)
        return WindInverse(horizontal, forward)

    def _fresh(self, dynamics: Any, time: pd.Timestamp) -> Run:
        clock = self._jax.numpy.zeros((), "float32")
        dynamics = self._model.dycore.with_sim_time(dynamics, clock)
        return Run(dynamics, self._empty, pd.Timestamp(time))

    @cached_property
    def _empty(self) -> Any:
        """Physics before the first step; found by tracing all of it, which takes 0.2 s."""
        return self._model.initial_physics_carry()

    def _primed(self, run: Run) -> Any:
        """Physics carry of a run with the one memory that matters over a step.

        jcm's upward longwave scheme adds (1 - emissivity) of the flux that it left behind a step
        earlier. Begun from none, the wind after 6 h is off by 0.02 m/s; begun from the flux of
        the state itself, by 1e-5 m/s, as much as by rounding.
        """
        radiation = run.physics["_mod_radcon"]
        clock = clock_of(run.time)
        flux = self._longwave(run.dynamics, run.physics, clock)
        return {**run.physics, "_mod_radcon": radiation.copy(flux=flux)}

    @cached_property
    def _longwave(self) -> Any:
        """Compiled: (dynamics, physics, clock) -> upward longwave flux, over climatological SST."""
        from jcm.date import DateData
        from jcm.physics_interface import compute_physics_step_gridpoint

        model, seconds = self._model, int(self._model.dt_si.m)

        def flux(dynamics: Any, physics: Any, clock: Any) -> Any:
            forcing = self._climate.select(DateData(clock, self._jax.numpy.int32(0), seconds))
            state = model.dycore.to_physics_state(dynamics)
            _, after = compute_physics_step_gridpoint(
                state, forcing, model.terrain, physics, physics=model.physics, time_step=seconds
            )
            return after["_mod_radcon"].flux

        return self._jax.jit(flux)

    @cached_property
    def _carry(self) -> Any:
        """Compiled: (state, physics, clock, sst (T, W, H)) -> the last frame, (1, ...)."""
        jax = self._jax

        def carry(state: Any, physics: Any, clock: Any, sst: Any) -> Any:
            flux = self._longwave(state, physics, clock)
            radiation = physics["_mod_radcon"].copy(flux=flux)
            _, out = self._integrate(state, {**physics, "_mod_radcon": radiation}, clock, sst)
            return jax.tree.map(lambda x: x[-1:], out)

        return jax.jit(carry)

    def _nodal(self, state: Any) -> tuple[Any, Any]:
        """Grid-point (32, W, H) profile fields and (1, W, H) log pressure of a spectral state."""
        from dinosaur.spherical_harmonic import vor_div_to_uv_nodal

        jnp, horizontal = self._jax.numpy, self._model.coords.horizontal
        u, v = vor_div_to_uv_nodal(horizontal, state.vorticity, state.divergence, clip=False)
        reference = jnp.asarray(self._primitive.reference_temperature)[:, None, None]
        temperature = horizontal.to_nodal(state.temperature_variation) + reference
        humidity = horizontal.to_nodal(state.tracers["specific_humidity"])
        profile = jnp.concatenate([u, v, temperature, humidity])
        return profile, horizontal.to_nodal(state.log_surface_pressure)

    def _frames(self, profile: np.ndarray, log_pressure: np.ndarray, surface: Any) -> np.ndarray:
        units = self.si_units(profile, log_pressure, surface, np)
        return np.ascontiguousarray(units, np.float32)

    def si_units(self, profile: Any, log_pressure: Any, surface: Any, xp: Any) -> Any:
        """Frames as ``frame`` gives them, (N, ..., W, H), to (N, C, H, W) in SI units.

        Args:
            profile, log_pressure, surface: see ``frame``; the last is None where it is left out.
            xp: whose arrays they are, NumPy's or JAX's.
        """
        levels = profile.shape[1] // 4
        scale = np.ones((profile.shape[1], 1, 1), np.float32)
        scale[: 2 * levels] = self._speed
        parts = [profile * scale, xp.exp(log_pressure) * np.float32(self._p0)]
        if surface is not None:
            parts.append(surface)
        return xp.swapaxes(xp.concatenate(parts, 1), -1, -2)

    @cached_property
    def _integrate(self) -> Any:
        """Compiled: (dynamics, physics, clock, sst (T, W, H)) -> end, frames."""
        jax = self._jax

        def integrate(dynamics: Any, physics: Any, clock: Any, sst: Any) -> Any:
            (state, physics, _), out = jax.lax.scan(self.frame, (dynamics, physics, clock), sst)
            return (state, physics), out

        return jax.jit(integrate)

    def frame(self, carry: Any, field: Any) -> Any:
        """Traced: ((dynamics, physics, clock), sst (W, H)) -> the same a frame later, the frame.

        The frame is profile (32, W, H), log pressure (1, W, H) and surface (S, W, H), not scaled.
        """
        import jax_datetime

        jax = self._jax
        jnp, seconds = jax.numpy, int(self._model.dt_si.m)

        def step(carry: Any, index: Any) -> Any:
            from jcm.date import DateData

            state, diagnostics, now, rain = carry
            forcing = self._climate.copy(sea_surface_temperature=field)
            advance = self._model._get_op_split_step_fn(forcing)
            state, diagnostics = advance(state, diagnostics, DateData(now, index, seconds))
            now = now + jax_datetime.Timedelta(seconds=jnp.int32(seconds))
            return (state, diagnostics, now, rain + _rain(diagnostics) * seconds), None

        rain = jnp.zeros(field.shape, jnp.float32)
        counts = jnp.arange(self.steps, dtype=jnp.int32)
        (state, physics, now, rain), _ = jax.lax.scan(step, (*carry, rain), counts)
        near = physics["_surface_flux"]
        surface = [near.t0, near.u0, near.v0, rain / GRAMS_PER_M3_WATER]
        named = jnp.stack(surface[: len(self.surface)])
        return (state, physics, now), (*self._nodal(state), named)


def ocean(model: SpeedyModel, offset: float = 0.0) -> Ocean:
    """The observed SST on a model's grid."""
    return Ocean(model.grid, offset)


def _rain(diagnostics: Any) -> Any:
    """Precipitation in g m-2 s-1."""
    return diagnostics["_condensation"].precls + diagnostics["_convection"].precnv


def _to_modal(horizontal: Any, jnp: Any, field: np.ndarray) -> Any:
    return horizontal.to_modal(jnp.asarray(field, jnp.float32))


def clock_of(time: pd.Timestamp) -> Any:
    """A time as jcm's steps take it."""
    import jax_datetime

    return jax_datetime.to_datetime(str(pd.Timestamp(time)))
