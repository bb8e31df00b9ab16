"""The tracks on a tiny world whose scores are known: white in space, AR(1) in time."""

import numpy as np
import pytest
import torch
from models import saved, toy_forecaster, toy_prior
from worlds import MEMORY, SPREAD, expect, toy_archive

from gapzoo import checkpoint
from gapzoo.core import GapzooError
from gapzoo.forecasters.corrected import Stage
from gapzoo.forecasters.linear import Correction, bases
from gapzoo.leaderboard import methods, rows
from gapzoo.leaderboard.forecasts import FORECASTS
from gapzoo.leaderboard.protocol import Protocol

M = 12
ERRORS = np.array([1.0, 1.0, 100.0])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Six years to train, 2004 to test."""
    path = tmp_path_factory.mktemp("tracks") / "toy.zarr"
    train = ("1998-01-01", "2003-12-31")
    return toy_archive(path, train, start=train[0], end="2004-12-31", segment_shards=99)


@pytest.fixture(scope="module")
def models(archive, tmp_path_factory):
    """Folders of a prior, a forecaster, and ones of fewer channels."""
    folder, fewer = tmp_path_factory.mktemp("models"), ["temperature"]
    return {
        "prior": str(saved(toy_prior(archive), folder / "p")),
        "forecaster": str(saved(toy_forecaster(archive), folder / "f")),
        "generator": str(saved(toy_forecaster(archive, model="crpscast_small"), folder / "g")),
        "denoiser": str(saved(toy_forecaster(archive, model="diffcast_small"), folder / "d")),
        "other prior": str(saved(toy_prior(archive, fewer), folder / "op")),
        "other forecaster": str(saved(toy_forecaster(archive, fewer), folder / "of")),
    }


def protocol(track: str, **changes) -> Protocol:
    settings = {"world": "toy", "period": ["2004-01-01", "2004-12-31"], "cases": 3, "members": M}
    settings |= {"densities": [0.25], "networks": 2, "lead_days": 2, "hours": 24}
    return Protocol(name=f"toy-{track}", track=track, **(settings | changes))


def run(archive, track, entry, options=None, **changes):
    return rows.run(protocol(track, **changes), archive, entry, options or {})


def test_optimal_interpolation_of_white_noise(archive):
    """Observed: s^2 r^2 / (s^2 + r^2) is left of the variance s^2; elsewhere all of it."""
    densities = [0.25, 0.5, 1.0]
    row = run(archive, "analysis", "optimal_interpolation", densities=densities, cases=24)
    scores = [row["scores"][f"{d:g}"] for d in densities]
    left = (ERRORS**2 / (SPREAD**2 + ERRORS**2)).mean()
    for density, found in zip(densities, scores, strict=True):
        # stations are drawn among the points evenly; area weights change little of that
        known = np.sqrt((1 + 1 / M) * (1 - density + density * left))
        assert found["rmse"] == pytest.approx(known, rel=0.12)
        assert found["spread_skill"] == pytest.approx(1.0, abs=0.12)
    assert scores[2]["crps"] < scores[1]["crps"] < scores[0]["crps"]


def test_climatology_scores_as_such_at_every_density(archive):
    """To 10 %: the fit takes 2 % of the spread, members of one month of one year are alike."""
    row = run(archive, "analysis", "climatology", densities=[0.1, 1.0], cases=24)
    for found in row["scores"].values():
        assert found["rmse"] == pytest.approx(np.sqrt(1 + 1 / M), rel=0.1)
        assert found["crps"] == pytest.approx(1 / np.sqrt(np.pi), rel=0.1)
        assert found["spread_skill"] == pytest.approx(1.0, abs=0.1)


def test_persistence_by_lead(archive):
    row = run(archive, "weather", "persistence", cases=24, lead_days=3)
    for days in (1, 2, 3):
        found = row["scores"][str(24 * days)]
        assert found["rmse"] == pytest.approx(np.sqrt(2 * (1 - MEMORY**days)), rel=0.1)
        assert found["acc"] == pytest.approx(MEMORY**days, abs=0.08)
        assert "spread_skill" not in found


def test_climatology_forecasts_do_not_age(archive):
    row = run(archive, "weather", "climatology", cases=16)
    for found in row["scores"].values():
        assert found["rmse"] == pytest.approx(np.sqrt(1 + 1 / M), rel=0.08)


def test_the_prior_track_knows_its_own_archive(archive):
    """Training states against the period's: spectra and histograms agree to sampling error."""
    row = run(archive, "prior", "climatology", cases=60)
    found = row["scores"]["all"]
    assert found["spectrum_error"] < 0.1 and found["histogram_distance"] < 0.05
    assert found["spread_ratio"] == pytest.approx(1.0, abs=0.05)
    assert set(row["scores"]) == {"all", "temperature", "surface_pressure"}


FAST = {"steps": 2}
RUNS = [
    ("analysis", {"prior": "prior"}),
    ("prior", {"prior": "prior"}),
    ("weather", {"prior": "prior", "forecaster": "forecaster"}),
    ("weather", {"prior": "prior", "forecaster": "forecaster", "form": "renoise"}),
    ("cycle", {"prior": "prior", "forecaster": "forecaster"}),
    ("cycle", {"prior": "prior", "forecaster": "forecaster", "form": "mean"}),
    ("cycle", {"prior": "prior"}),
]


@pytest.mark.parametrize(("track", "options"), RUNS, ids=lambda v: v if isinstance(v, str) else "")
def test_gap_runs_on_every_track_and_a_second_run_is_the_same(archive, models, track, options):
    """To the last digit, with the provenance of its checkpoints and settings."""
    options = {k: models.get(v, v) for k, v in options.items()} | FAST
    settings = {"members": 2, "cases": 2, "densities": [0.5], "networks": 1}
    first, second = (run(archive, track, "gap", dict(options), **settings) for _ in range(2))
    assert first["scores"] == second["scores"]
    assert first["protocol_hash"] == protocol(track, **settings).hash
    assert first["archive_hash"] == archive.hash
    assert first["weights_sha256"] == checkpoint.load(models["prior"]).hash
    if "forecaster" in options:
        assert first["forecaster_sha256"] == checkpoint.load(models["forecaster"]).hash
    assert {"git commit", "device", "wall_seconds", "seed", "estimator"} <= first.keys()
    assert first["sampling"]["steps"] == 2
    headline = next(iter(first["scores"].values()))
    assert all(np.isfinite(v) for v in headline.values() if isinstance(v, float))


def test_networks_go_to_the_device_and_stay_there(archive, models):
    """A GPU's row was computed on the CPU: the roll-out took its networks back."""
    setting = methods.setting_of(archive, [], "meta")
    options = {k: models[k] for k in ("prior", "forecaster")}
    made = FORECASTS.build("gap", setting=setting, protocol=protocol("weather"), **options)
    held = [*made.prior.denoiser.parameters(), *made.prior.denoiser.buffers()]
    assert all(t.is_meta for t in [*held, *made.network.network.parameters()])


def test_the_network_alone_forecasts(archive, models):
    options = {"forecaster": models["forecaster"]}
    row = run(archive, "weather", "convcast", options, members=2, cases=2)
    assert row["scores"]["24"]["rmse"] < row["scores"]["48"]["rmse"]
    assert "forecaster_sha256" in row


@pytest.mark.parametrize(("entry", "model"), [("crpscast", "generator"), ("diffcast", "denoiser")])
def test_generating_networks_make_members_from_one_truth(archive, models, entry, model):
    options = {"forecaster": models[model]}
    first, second = (run(archive, "weather", entry, options, members=3) for _ in range(2))
    assert first["scores"] == second["scores"]
    assert first["scores"]["48"]["spread_skill"] > first["scores"]["24"]["spread_skill"] / 2 > 0


def test_networks_alone_are_corrected_in_the_modes_of_a_basis(archive, models, tmp_path):
    """The toy remembers 0.8 of a day: taking a fifth off what is nearly persistence is right."""
    prior, network = toy_prior(archive, wiener=True), toy_forecaster(archive)
    each = bases(prior.covariance, 0.3)
    matrices = [-0.2 * torch.eye(len(r), 2 * len(r), dtype=torch.complex64) for _, r, _ in each]
    scales = [torch.cat([r, r]) for _, r, _ in each]
    correction = Correction(prior.covariance, 0.3, matrices, scales)
    network.extras |= Stage(correction).to_tensors(24, 1)
    basis, forecaster = saved(prior, tmp_path / "p"), saved(network, tmp_path / "f")
    options = {"forecaster": str(forecaster)}
    plain = run(archive, "weather", "convcast", options, cases=24)
    right = run(archive, "weather", "convcast", options | {"basis": str(basis)}, cases=24)
    assert "basis" not in plain and right["basis"] == prior.name
    error = [row["scores"]["24"]["rmse"] for row in (plain, right)]
    assert error[1] < 0.98 * error[0]


def test_a_network_is_run_by_its_own_entry(archive, models):
    pairs = (("convcast", "generator"), ("crpscast", "forecaster"), ("crpscast", "denoiser"))
    for entry, wrong in pairs:
        with expect(GapzooError, "is for the entry"):
            run(archive, "weather", entry, {"forecaster": models[wrong]}, members=2, cases=1)


def test_observations_are_the_same_for_every_entry(archive):
    """A protocol's network and errors hang on its seed and the time, never on the method."""
    from gapzoo.leaderboard.methods import Network, case, setting_of

    setting = setting_of(archive, [])
    network = Network(setting.world, 0.5, 7)
    here = int(archive.indices("2004-02-01", "2004-02-01")[0])
    first, second = (case(setting, network, here, 1).observations for _ in range(2))
    assert (first == second).all()
    assert (case(setting, network, here, 2).observations != first).any()
    truth = network.stations(setting.reader.physical(np.array([here]))[0])
    z = ((first - truth) / network.errors).numpy()
    assert abs(z.mean()) < 4 / len(z) ** 0.5 and abs(z.std() - 1) < 0.35


@pytest.mark.parametrize(
    ("track", "options"),
    [
        ("analysis", {"prior": "other prior"}),
        ("prior", {"prior": "other prior"}),
        ("cycle", {"prior": "other prior", "forecaster": "forecaster"}),
        ("cycle", {"prior": "prior", "forecaster": "other forecaster"}),
        ("weather", {"prior": "prior", "forecaster": "other forecaster"}),
        ("weather", {"prior": "other prior", "forecaster": "other forecaster"}),
    ],
)
def test_checkpoints_of_other_channels_are_refused_by_name(archive, models, track, options):
    options = {k: models[v] for k, v in options.items()} | FAST
    with expect(GapzooError, "toy", "'surface_pressure'"):
        run(archive, track, "gap", options, members=2, cases=1, networks=1)


@pytest.mark.parametrize("track", ["analysis", "weather", "cycle", "prior"])
@pytest.mark.parametrize(
    ("entry", "options", "parts"),
    [
        ("gapp", {}, ["'gapp'"]),
        ("gap", {}, ["'prior'"]),
        ("gap", {"prior": "p", "forecaster": "f", "step": 2}, ["'step'"]),
    ],
)
def test_unknown_entries_and_options_are_refused(archive, models, track, entry, options, parts):
    if track != "weather" and track != "cycle":
        options = {k: v for k, v in options.items() if k != "forecaster"}
    names = {"p": "prior", "f": "forecaster"}
    options = {k: models[names[v]] if v in names else v for k, v in options.items()}
    with expect(GapzooError, *parts):
        run(archive, track, entry, options, members=2, cases=1, networks=1)


def test_an_unknown_track_is_refused(archive):
    with expect(GapzooError, "track 'seasons'"):
        run(archive, "seasons", "gap")
