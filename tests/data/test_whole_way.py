"""WeatherBench 2's layout the whole way: build by a recipe, train, assimilate, forecast, score.

And the same build on a dask cluster, one of whose workers is killed.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import stores
import torch
import xarray as xr
from clusters import cluster
from models import TINY

from gapzoo import checkpoint, cli, fit, measure, recipe
from gapzoo.core import MemberGenerator
from gapzoo.data.archive import Archive
from gapzoo.data.build import Build
from gapzoo.data.forcing import observed, require
from gapzoo.data.module import Reader
from gapzoo.data.observations import build_operator
from gapzoo.evaluators.crps import ensemble_crps
from gapzoo.tasks.assimilation import Assimilation, constraint
from gapzoo.tasks.rollout import Rollout
from gapzoo.tasks.sampling import Sampling

SHIPPED = Path(__file__).parents[2] / "recipes"
RECIPES = sorted((SHIPPED / "data").glob("*.yaml"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """100 days at 64x32: two profiles on two levels, two surface variables."""
    path = tmp_path_factory.mktemp("wb2") / "64x32.zarr"
    profiles, surface = ("geopotential", "temperature"), ("2m_temperature", "sea_ice_cover")
    stores.weatherbench2(
        path, steps=400, levels=(500, 850), profiles=profiles, surface=surface, chunk=100
    )
    return path


@pytest.fixture(scope="module")
def archive(store, tmp_path_factory):
    """Built by the command line from the shipped recipe, on a coarser grid."""
    output = tmp_path_factory.mktemp("archives") / "era5.zarr"
    shipped = next(p for p in RECIPES if p.stem == "era5-64x32")
    changes = [
        f"path={store}", f"output={output}", "grid=16x8", "start=2000-01-01", "end=null",
        "levels=[500,850]", "variables=[geopotential,temperature,2m_temperature]",
        "train=[2000-01-01,2000-04-09]",
    ]  # fmt: skip
    assert cli.main(["build-data", str(shipped), *changes, "--workers", "1"]) == 0
    return Archive(output)


@pytest.fixture(scope="module")
def models(archive, tmp_path_factory):
    """A prior and a forecaster, trained for a few steps."""
    folder, made = tmp_path_factory.mktemp("models"), {}
    common = {
        "archive": str(archive.path), "train": ["2000-01-01", "2000-04-09"],
        "validate": ["2000-03-01", "2000-03-20"], "batch_size": 4, "steps_per_epoch": 4,
        "validation_samples": 4, "max_steps": 4, "model_options": TINY, "accelerator": "cpu",
        "covariance_states": 60,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "ERROR_FORECASTS", 8)
        for kind, model in (("prior", "unet_small"), ("forecaster", "convcast_small")):
            wanted = recipe.Recipe(name=f"{model}.t", kind=kind, model=model, hours=[6], **common)
            done = fit.fit(wanted, folder / f"run-{kind}", folder / model)
            made[kind], made[f"{kind}_path"] = checkpoint.load(done), done
    return made


def test_the_archive_is_as_the_recipe_says(archive):
    assert archive.attributes["world"] == "era5-64x32" and archive.grid.shape == (8, 16)
    assert archive.channels.labels[0] == "geopotential@500" and len(archive.times) == 400
    assert np.isfinite(archive.array("forcing_climatology")).all()
    assert (archive.array("forcing_std")[[0, 2]] > 0).all()


def test_assimilate_forecast_evaluate(archive, models):
    """Observed 2 m temperature draws the analysis near; the forecast is scored by CRPS."""
    prior, forecaster = models["prior"], models["forecaster"]
    world, when = prior.world, archive.times[300]
    reader, forcing = Reader(archive, world), observed(archive, world)
    latitude, longitude = np.meshgrid(world.grid.latitude, world.grid.longitude, indexing="ij")
    names = np.full(latitude.size, "2m_temperature")
    operator = build_operator(
        world.grid, world.channels, latitude.ravel(), longitude.ravel(), names,
        np.full(latitude.size, np.nan),
    )  # fmt: skip
    truth = reader.physical(np.array([300]))[0]
    given = constraint(world, operator, operator(truth[None])[0], torch.full((128,), 0.3), when)
    sampling = Sampling(steps=4)
    task = Assimilation(prior=prior.prior, world=world, sampling=sampling)
    now = forcing(pd.DatetimeIndex([when]))[0]
    analysis = task.analyse(when, MemberGenerator(0, 3), given, now)
    free = task.analyse(when, MemberGenerator(0, 3), None, now)
    target, at = reader.state(np.array([300])), world.channels.index("2m_temperature")
    error = [(x.mean(0) - target[0])[at].square().mean().sqrt() for x in (analysis, free)]
    assert error[0] < 0.5 * error[1]
    require(forcing, when, archive.times[302])
    roll = Rollout(forecaster=forecaster.forecaster, world=world, hours=6)
    states = roll.run(analysis, when, MemberGenerator(0, 3), forcing)
    for step in (301, 302):
        valid, ensemble = next(states)
        assert valid == archive.times[step]
        score = ensemble_crps(ensemble[None], reader.state(np.array([step])))
        assert 0 < score.mean() < 5 and torch.isfinite(score).all()


def test_assimilate_forecast_evaluate_and_plot_by_commands(archive, models, tmp_path, capsys):
    """Two cycles of observed 2 m temperature, a day's forecast from the last, scored and drawn."""
    when, world = archive.times[[300, 301]], models["prior"].world
    latitude, longitude = np.meshgrid(world.grid.latitude, world.grid.longitude, indexing="ij")
    truth = archive.read("state", np.array([300, 301]), [len(world.channels) - 1])[:, 0]
    rows = {"latitude": np.tile(latitude.ravel(), 2), "longitude": np.tile(longitude.ravel(), 2)}
    rows |= {"time": np.repeat(when, 128), "variable": "2m_temperature"}
    table = pd.DataFrame({**rows, "value": truth.ravel(), "error": 0.3})
    table.to_csv(tmp_path / "obs.csv", index=False)
    common = [f"prior={models['prior_path']}", f"forecaster={models['forecaster_path']}", "hours=6"]
    common += [f"forcing={archive.path}", "members=3", "sampling={steps: 3}"]

    def run(command: str, *arguments: str, code: int = 0) -> str:
        """What a command printed, on one line."""
        assert cli.main([command, *arguments]) == code
        printed = capsys.readouterr()
        return " ".join((printed.out + printed.err).split())

    observed = [str(SHIPPED / "assimilation" / "gaussian.yaml"), *common, "static=0.02"]
    table = ["--observations", f"{tmp_path}/obs.csv", "--output"]
    run("assimilate", *observed, *table, f"{tmp_path}/a")
    late = ["end=2000-04-20", *table, f"{tmp_path}/late"]
    told = run("assimilate", *observed, *late, code=2)
    assert "no forcing of 2000-04-10 00:00" in told
    store = f"{tmp_path}/a/analyses.zarr"
    carried = [str(SHIPPED / "forecast" / "analyses.yaml"), *common, "form=renoise", "sst=observed"]
    carried += [f"initial={store}", f"times=[{when[1]:%Y-%m-%dT%H}]"]
    run("forecast", *carried, "lead_days=0.5", "--output", f"{tmp_path}/f")
    told = run("forecast", *carried, "lead_days=60", "--output", f"{tmp_path}/late", code=2)
    assert "is not known on 2000-05-15" in told
    assert not (tmp_path / "late").exists(), "refused before it starts, by the date it ends on"
    forecast, scores = f"{tmp_path}/f/forecast.zarr", f"{tmp_path}/s"
    told = run(
        "evaluate", forecast, str(archive.path), "--metrics", "rmse", "crps", "--output", scores
    )
    assert "1 initial times" in told and "rmse" in told
    with xr.open_dataset(f"{scores}.scores.nc") as found:
        rmse = [v.sel(metric="rmse").values for v in found.data_vars.values() if "metric" in v.dims]
    assert rmse and all((v[np.isfinite(v)] > 0).sum() == 2 for v in rmse), "both leads"
    picture = tmp_path / "error.png"
    minus = ["--minus", str(archive.path), "--output", str(picture)]
    run("plot", store, "2m_temperature", *minus)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_name_what_their_source_takes(path):
    from gapzoo.commands import build_data

    values = recipe.read(path)
    build_data._refuse_unknown(values["source"], values, str(path))
    assert path.read_text().startswith(f"# gapzoo build-data recipes/data/{path.name}")
    assert values["name"] == path.stem and values["output"] == f"archives/{path.stem}.zarr"


@pytest.mark.parametrize(
    ("text", "change", "parts"),
    [
        ("source: weatherbench2\ntrain: [2000, 2001]\n", "levls=[5]", ["'levls'", "'levels'"]),
        ("train: [2000, 2001]\n", "a=1", ["names no source", "weatherbench2"]),
        ("source: cf\npath: x.nc\nvariables: [t]\n", "hours=6", ["'train' needs"]),
        ("source: cff\ntrain: [2000, 2001]\n", "hours=6", ["no source 'cff'", "'cf'"]),
    ],
)
def test_a_wrong_recipe_exits_with_2(tmp_path, capsys, text, change, parts):
    (tmp_path / "data.yaml").write_text(text)
    assert cli.main(["build-data", str(tmp_path / "data.yaml"), change]) == 2
    told = capsys.readouterr().err
    assert all(part in told for part in parts), told


@pytest.mark.parametrize("asked", [["start=1990", "end=1991"], ["--start", "1990"]])
def test_a_year_alone_is_a_date(tmp_path, asked):
    from gapzoo.commands import build_data

    path = tmp_path / "data.yaml"
    path.write_text("source: cf\npath: x.nc\nvariables: [t]\ntrain: [2000, 2001]\nend: null\n")
    args = cli.parser().parse_args(["build-data", str(path), *asked])
    arguments = build_data._by_recipe(args).arguments
    assert arguments["start"] == "1990" and arguments["end"] in ("1991", None)


def test_train_none_is_an_archive_without_statistics(tmp_path, capsys):
    from gapzoo.commands import build_data

    path = tmp_path / "data.yaml"
    path.write_text("source: cf\npath: x.nc\nvariables: [t]\ntrain: none\n")
    args = cli.parser().parse_args(["build-data", str(path)])
    assert build_data._by_recipe(args).train is None
    assert cli.main(["build-data", str(path), "train=1990", "--together"]) == 2
    assert "a first and a last day, or 'none'" in capsys.readouterr().err
    assert cli.main(["build-data", str(path), "--together", "--workers", "2"]) == 2
    assert "leave --workers and --scheduler out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_loses_nothing(store, tmp_path):
    """Two worker processes, one killed at work once a shard is marked. Alike to the bit."""
    source = {
        "path": str(store), "levels": [500, 850], "variables": ["geopotential", "temperature"],
        "segment_shards": 1,
    }  # fmt: skip
    train = ("2000-01-01", "2000-02-29")
    one = Build("weatherbench2", source, tmp_path / "one.zarr", train).run(1)
    build = Build("weatherbench2", source, tmp_path / "two.zarr", train)
    with cluster() as found:
        found.kill_first(lambda: bool(list((build.output / ".build").glob("*.done"))))
        two = build.run(scheduler=found.address)
        assert found.lost, "it was killed with segments in hand"
        assert found.workers[0].wait(60) == -9
        assert found.workers[1].poll() is None
    assert two.hash == one.hash
    every = np.arange(400)
    for name in ("state", "forcing"):
        assert one.read(name, every).tobytes() == two.read(name, every).tobytes()
