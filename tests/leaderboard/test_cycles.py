"""Cycled methods on a tiny world: known answers, kills, divergence, tuning."""

import dataclasses

import numpy as np
import pytest
import torch
from worlds import MEMORY, expect, toy_archive

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.forecasters import FORECASTERS
from gapzoo.forecasters.base import Forecaster
from gapzoo.leaderboard import cycles, journal, rows
from gapzoo.leaderboard.methods import Network, case, setting_of
from gapzoo.leaderboard.protocol import Cycling, Protocol
from gapzoo.tasks.forecast_error import PAIRS
from gapzoo.tasks.sampling import NotFinite

M = 24


@FORECASTERS.register("test.damped")
class Damped(Forecaster):
    """The toy world's own dynamics: anomalies keep MEMORY of themselves, noise comes in."""

    def step(self, state, time, hours, forcing=None, generator=None):
        noise = (1 - MEMORY**2) ** 0.5 * generator.randn(state.shape)
        return MEMORY * state + noise


@FORECASTERS.register("test.bursting")
class Bursting(Damped):
    """Grows without bound."""

    def step(self, state, time, hours, forcing=None, generator=None):
        return 100 * (state + 1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Two years to train, one to test; the forecaster knows its law."""
    path = tmp_path_factory.mktemp("cycles") / "toy.zarr"
    return toy_archive(path, ("2002-01-01", "2003-12-31"), start="2002-01-01", end="2004-12-31")


def protocol(**changes) -> Protocol:
    settings = {"world": "toy", "period": ["2004-01-01", "2004-12-31"], "cases": 2, "members": M}
    settings |= {"densities": [0.5], "lead_days": 12, "hours": 24}
    settings["cycling"] = Cycling(spin_up_days=4, withheld=0.2, **changes.pop("cycling", {}))
    return Protocol(name="toy-cycle", track="cycle", **(settings | changes))


LOCAL = {"forecaster": "test.damped", "length": 1e5, "vertical": 0.01}
"""The world is white in space: nothing is to be learned from neighbours."""


def run(archive, entry, options, **changes):
    return rows.run(protocol(**changes), archive, entry, dict(options))


def kalman(observed: bool) -> float:
    """Error of the filter over the climate's spread, an error of 1/4 to 1/2 of it."""
    r, p, q = (1 / 4) ** 2, 1.0, 1 - MEMORY**2
    for _ in range(50):
        p = MEMORY**2 * p + q
        p = p * r / (p + r) if observed else p
    return float(np.sqrt(p))


def test_letkf_filters_what_it_sees_and_its_statistics_are_consistent(archive):
    row = run(archive, "letkf", {**LOCAL, "rtps": 0.0, "inflation": 1.0})
    found = row["scores"]["0.5"]
    half = np.sqrt((kalman(True) ** 2 + 1) / 2)  # half of the columns, the others free
    assert found["rmse"] == pytest.approx(half, rel=0.25)
    assert found["spread_skill"] == pytest.approx(1.0, abs=0.25)
    for kind in ("innovations", "residuals", "withheld"):
        assert found[kind]["consistency"] == pytest.approx(1.0, abs=0.25), kind
    assert (
        found["residuals"]["rms"]["temperature@0.2"]
        < found["innovations"]["rms"]["temperature@0.2"]
    )
    assert "diagnosed_error" in found["innovations"] and "crps" not in found["residuals"]
    low, high = found["crps_interval"]
    assert low < found["crps"] < high and len(found["crps_by_start"]) == 2
    assert row["cost"]["0.5"].keys() == {"forecast_cpu", "analysis_cpu", "wall"}


def test_channels_that_are_kept_are_as_they_were_forecast(archive):
    """Of a channel that is kept, residuals are the innovations; of others they are smaller."""
    kept, moved = "temperature@0.2", "temperature@0.95"
    found = run(archive, "letkf", {**LOCAL, "kept": kept}, cases=1)["scores"]["0.5"]
    before, after = (found[kind]["rms"] for kind in ("innovations", "residuals"))
    assert after[kept] == pytest.approx(before[kept], rel=1e-6)
    assert after[moved] < 0.8 * before[moved]
    with expect(GapzooError, "no variable or channel 'humidity'"):
        run(archive, "letkf", {**LOCAL, "kept": ["humidity"]})


def test_additive_inflation_adds_scaled_changes_whose_mean_is_none(archive):
    """Seen where observations say nothing: the spread of a day's changes, the mean as before."""
    setting = setting_of(archive, [])
    options = {**LOCAL, "rtps": 0.0, "additive": 0.5}
    method = cycles.CYCLES.build("letkf", setting=setting, protocol=protocol(), **options)
    network = Network(setting.world, 0.5, 3)
    network.label, network.errors = "0.5", 1e6 * network.errors
    method.prepare(network)
    here = case(setting, network, 800, 0)
    background = torch.zeros(M, *setting.world.shape)
    found = method.analyse(here, background, MemberGenerator(1, M))
    assert found.mean(0).abs().max() < 1e-3
    rows = archive.indices("2002-01-01", "2003-12-30")
    changes = setting.reader.state(rows + 1) - setting.reader.state(rows)
    expected = 0.5**2 * changes.square().mean().item()
    assert found.var(0).mean().item() == pytest.approx(expected, rel=0.1)
    again = method.analyse(here, background, MemberGenerator(1, M))
    assert torch.equal(found, again)
    assert not torch.allclose(found, method.analyse(here, background, MemberGenerator(2, M)))


def test_errors_of_the_model_are_added_to_the_members(archive):
    """Persistence errs by what changes in a cycle: known from the archive alone."""
    setting = dataclasses.replace(setting_of(archive, []), validate=("2002-01-01", "2003-12-30"))
    rows = archive.indices(*setting.validate)
    rows = rows[np.linspace(0, len(rows) - 1, PAIRS).astype(int)]
    runs = archive.runs
    rows = rows[runs[rows] == runs[rows + 1]]
    world, later = setting.world, archive.times[rows + 1]
    forecasts = world.normalise(setting.reader.physical(rows)[:, None], later)[:, 0]
    errors = forecasts - setting.reader.state(rows + 1)
    options = {**LOCAL, "rtps": 0.0, "forecaster": "persistence"}
    options |= {"sample": "errors", "additive": 0.5}
    method = cycles.CYCLES.build("letkf", setting=setting, protocol=protocol(), **options)
    network = Network(setting.world, 0.5, 3)
    network.label, network.errors = "0.5", 1e6 * network.errors
    method.prepare(network)
    torch.testing.assert_close(method.errors(), errors, rtol=1e-4, atol=1e-4)
    here, background = case(setting, network, 801, 0), torch.zeros(M, *setting.world.shape)
    found = method.analyse(here, background, MemberGenerator(1, M))
    assert found.mean(0).abs().max() < 1e-3
    expected = 0.5**2 * errors.var(0).mean().item()
    assert found.var(0).mean().item() == pytest.approx(expected, rel=0.15)
    with expect(GapzooError, "sample 'guess'"):
        method.options["sample"] = "guess"
        method.prepare(network)
    with expect(GapzooError, "over=48 is of sample=errors"):
        method.options |= {"sample": "changes", "over": 48}
        method.prepare(network)


def test_methods_rank_as_they_must(archive):
    scores = {
        "free": run(archive, "free", {"forecaster": "test.damped"}),
        "letkf": run(archive, "letkf", {**LOCAL, "ensemble": 40}),
        "enkf": run(archive, "enkf", LOCAL),
        "var3d": run(
            archive, "var3d", {**LOCAL, "samples": 100, "sample": "climate", "scale": 0.4}
        ),
    }
    rmse = {name: row["scores"]["0.5"]["rmse"] for name, row in scores.items()}
    assert rmse["free"] == pytest.approx(np.sqrt(1 + 1 / M), rel=0.15)
    assert all(rmse[name] < 0.9 * rmse["free"] for name in ("letkf", "enkf", "var3d")), rmse
    assert scores["letkf"]["members"] == 40
    assert len(scores["letkf"]["scores"]["0.5"]["ranks"]) == 41


def kill(monkeypatch, at: int):
    """Stop the LETKF at one of its analyses; what counts them."""
    plain, count = cycles.LETKFCycle.analyse, iter(range(99))

    def dying(self, *args):
        if next(count) == at:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(cycles.LETKFCycle, "analyse", dying)
    return count


def test_a_killed_cycle_goes_on_to_the_same_row(archive, tmp_path, monkeypatch):
    options = {**LOCAL, "adaptive": 0.04, "rotation": True}
    whole, count = run(archive, "letkf", options), kill(monkeypatch, 17)
    monkeypatch.setattr(journal, "versions", lambda: {"git commit": "first"})
    with pytest.raises(KeyboardInterrupt):
        rows.store(protocol(), archive, "letkf", dict(options), tmp_path)
    monkeypatch.setattr(journal, "versions", lambda: {"git commit": "second"})
    path = rows.store(protocol(), archive, "letkf", dict(options), tmp_path)
    found = rows._read(path)
    assert found["scores"] == whole["scores"]
    assert next(count) < 24 + 4, "finished blocks are not made again"
    assert found["git commit"] == "first, second", "of all blocks, as their costs"


def test_a_cycle_that_diverges_loses_and_says_so(archive):
    found = run(archive, "letkf", {**LOCAL, "forecaster": "test.bursting"})["scores"]["0.5"]
    assert found["crps"] == float("inf") and found["diverged"] == [0, 1]


def test_members_that_are_not_finite_are_a_divergence(archive, monkeypatch):
    def lost(self, *args):
        raise NotFinite("members [0] are not finite")

    monkeypatch.setattr(cycles.LETKFCycle, "analyse", lost)
    found = run(archive, "letkf", LOCAL)["scores"]["0.5"]
    assert found["crps"] == float("inf") and found["diverged"] == [0, 1]


def test_a_killed_tuning_goes_on(archive, tmp_path, monkeypatch):
    grid = {"forecaster": ["test.damped"], "length": [1e5, 9e6], "vertical": [0.01]}
    settings = {"cases": 1, "lead_days": 8}
    count = kill(monkeypatch, 12)
    with pytest.raises(KeyboardInterrupt):
        rows.tune(protocol(**settings), archive, "letkf", grid, folder=tmp_path)
    found = rows.tune(protocol(**settings), archive, "letkf", grid, folder=tmp_path)
    assert next(count) < 16 + 3 and not list(tmp_path.rglob("*.npz"))
    assert found["best"]["0.5"]["length"] == 1e5


def test_tuning_keeps_the_best_of_each_network_and_a_run_takes_it(archive, tmp_path):
    grid = {"forecaster": ["test.damped"], "length": [1e5, 9e6], "vertical": [0.01]}
    settings = {"cases": 1, "lead_days": 8, "densities": [0.25, 0.5]}
    found = rows.tune(protocol(**settings), archive, "letkf", grid)
    assert {k: v["length"] for k, v in found["best"].items()} == {"0.25": 1e5, "0.5": 1e5}
    path = rows.save({**found, "entry": "letkf.tuned"}, tmp_path)
    options = {"forecaster": "test.damped", "tuned": str(path)}
    row = run(archive, "letkf", options, **settings)
    best = {k: v["crps"] for k, v in row["scores"].items()}
    tried = next(t for t in found["tried"] if t["options"]["length"] == 1e5)
    assert best == tried["crps"]


def test_a_tuning_is_added_to_what_was_tried_before(archive, tmp_path):
    """In two goes as in one; not to that of another protocol."""
    grid = {"forecaster": ["test.damped"], "vertical": [0.01]}
    wanted = protocol(cases=1, lead_days=8)
    whole = rows.tune(wanted, archive, "letkf", grid | {"length": [9e6, 1e5]})
    with expect(GapzooError, "no", "to add to"):
        rows.tuned_before(wanted, archive, "letkf", tmp_path)
    before: list = []
    for length in (9e6, 1e5, 1e5):
        found = rows.joined(
            before, rows.tune(wanted, archive, "letkf", grid | {"length": [length]})
        )
        rows.save({**found, "entry": "letkf.tuned"}, tmp_path)
        before = rows.tuned_before(wanted, archive, "letkf", tmp_path)
    assert found["tried"] == whole["tried"] and found["best"] == whole["best"]
    with expect(GapzooError, "protocol_hash", "leave --add out"):
        rows.tuned_before(protocol(cases=1, lead_days=9), archive, "letkf", tmp_path)


def test_sondes_observe_from_land_and_protocols_of_old_keep_their_hash(archive):
    settings = {"cases": 1, "lead_days": 5, "densities": [], "cycling": {"sondes": 6}}
    row = run(archive, "letkf", LOCAL, **settings)
    assert set(row["scores"]) == {"radiosondes"}
    plain = Protocol(name="toy-cycle", track="cycle")
    assert plain.hash == "6a1164409b2e"
    assert Protocol(name="toy-cycle", track="cycle", cycling=Cycling(sondes=1)).hash != plain.hash


def test_what_does_not_fit_is_named(archive):
    with expect(GapzooError, "no option 'lenght'", "length"):
        run(archive, "letkf", {**LOCAL, "lenght": 1.0})
    with expect(GapzooError, "sample 'season'"):
        run(archive, "var3d", {**LOCAL, "sample": "season"})
    with expect(GapzooError, "entry 'gap' needs 'prior'=CHECKPOINT"):
        run(archive, "gap", {"form": "mean"})
    with expect(GapzooError, "'convcast.x' was trained on the true one"):
        run(archive, "free", {"forecaster": "convcast.x"}, cycling={"parameters": {"a.b": 1.0}})
    with expect(GapzooError, "spin-up of 4 days"):
        run(archive, "free", {"forecaster": "test.damped"}, lead_days=4)
