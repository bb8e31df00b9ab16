"""Priors side by side: the same states, noise and units for all; what the columns say is so."""

import json

import pytest
import torch
from models import saved, toy, toy_prior
from worlds import expect

from gapzoo import cli
from gapzoo.compare import LEVELS, NONE, Comparison, markdown
from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS

SIZES = {"patch": 2, "size": 16, "depth": 2, "heads": 2, "width": 8, "experts": 4, "active": 2}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy(tmp_path_factory.mktemp("data") / "toy.zarr")


@pytest.fixture
def comparison(archive, tmp_path):
    """On all states of the year that covariances are fitted to, where none filters better."""
    period = ("1979-01-01", "1979-12-31")
    return Comparison(archive=archive.path, period=period, states=365, board=tmp_path)


def named(prior, name):
    prior.name = name
    return prior


@pytest.fixture
def silent(archive):
    """A prior whose network returns zero: its Wiener filter alone."""
    prior = named(toy_prior(archive, wiener=True), "unet_small.silent")
    with torch.no_grad():
        for p in prior.network.head.parameters():
            p.zero_()
    return prior


def mixture(archive):
    prior = named(toy_prior(archive, wiener=True), "mixture_small.toy")
    sizes = {k: v for k, v in prior.details["arguments"].items() if "channels" in k}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior.network = DENOISERS.build("mixture_small", **sizes, **SIZES).eval()
    return prior


def losses(column) -> list[float]:
    return [float(column[f"loss, noise {level:g}"]) for level in LEVELS]


def test_a_silent_network_is_the_filter_whose_error_is_the_unit(comparison, silent):
    """In the year that it was fitted to its errors are as large as the covariance says."""
    columns = comparison.columns([silent])
    assert losses(columns[silent.name]) == losses(columns[NONE])
    assert losses(columns[NONE]) == pytest.approx([1.0] * len(LEVELS), rel=0.1)


def test_units_are_those_of_the_first_for_all(comparison, silent, archive):
    """Another covariance, with thrice the variances, filters worse and changes nobody's units."""
    other = named(toy_prior(archive, wiener=True), "unet_small.other")
    other.network = silent.network
    other.extras["covariance.eigenvalues"] = 3 * other.extras["covariance.eigenvalues"]
    columns = comparison.columns([silent, other])
    assert losses(columns[silent.name]) == losses(comparison.columns([silent])[silent.name])
    worse = zip(losses(columns[other.name])[2:], losses(columns[NONE])[2:], strict=True)
    assert all(a > b for a, b in worse)


def test_sizes_experts_and_scores_are_told(comparison, silent, archive):
    mixed = mixture(archive)
    mixed.details |= {"training": {"samples": "12,000", "minutes": 10.0}, "weights_sha256": "ab"}
    rows = {"toy.gap": "cd", "toy.gap-mixed": "ab"}
    for name, digest in rows.items():
        scores = {"0.01": {"crps": 0.4125}, "0.05": {"crps": 0.3}, "0.1": {"crps": 0.2}}
        row = {"weights_sha256": digest, "scores": scores}
        (comparison.board / f"analysis-{name}.json").write_text(json.dumps(row))
    columns = comparison.columns([silent, mixed])
    column, count = columns[mixed.name], sum(p.numel() for p in mixed.network.parameters())
    assert column["parameters"] == f"{count:,}" != column["active parameters"]
    assert float(column["samples a second"]) > 0
    assert (column["samples"], column["minutes"]) == ("12,000", "10.0")
    assert all(p.grad is None for p in mixed.network.parameters())
    least, most = (float(column[k]) for k in ("least used expert (even: 1)", "most used expert"))
    assert 0 <= least < 1 < most <= SIZES["experts"] / SIZES["active"]
    assert (column["analysis CRPS, 1 %"], column["analysis CRPS, 10 %"]) == ("0.412", "0.200")
    assert "analysis CRPS, 1 %" not in columns[silent.name]
    lines = markdown(comparison.columns([silent, mixed])).splitlines()
    assert lines[0] == f"| | {NONE} | unet_small.silent | mixture_small.toy |"
    assert {line.count("|") for line in lines} == {5}


def test_a_prior_of_another_realisation_sees_states_as_it_normalises_them(
    comparison, silent, archive, tmp_path
):
    """With thrice the spread the same states are small: under much noise little is to be missed."""
    other = named(toy_prior(toy(tmp_path / "other.zarr", noise=3.0, seed=5), wiener=True), "wide")
    with torch.no_grad():
        for p in other.network.head.parameters():
            p.zero_()
    columns = comparison.columns([other, silent])
    assert max(losses(columns["wide"])[-3:]) < 0.5
    alone = comparison.columns([silent])
    assert losses(columns[silent.name]) == pytest.approx(losses(alone[silent.name]), rel=0.1)


def test_what_does_not_fit_the_archive_is_refused(comparison, archive, tmp_path):
    finer = toy(tmp_path / "finer.zarr", height=8, width=16)
    with expect(GapzooError, "checkpoint 'unet_small.toy'", "another grid"):
        comparison.columns([toy_prior(archive), toy_prior(finer)])
    with expect(GapzooError, "nothing to compare"):
        comparison.columns([])


def test_the_command_prints_the_table_and_writes_it_down(archive, tmp_path, capsys):
    made = saved(toy_prior(archive, wiener=True), tmp_path / "p")
    options = ["--archive", archive.path, "--period", "1979-01-01", "1979-12-31", "--states", 8]
    command = ["compare", made, *options, "--json", tmp_path / "table.json"]
    assert cli.main([str(part) for part in command]) == 0
    columns = json.loads((tmp_path / "table.json").read_text())
    assert list(columns) == [NONE, "unet_small.toy"]
    printed = capsys.readouterr().out
    for row in ("parameters", "active parameters", "loss, noise 0.4"):
        assert f"| {row} |" in printed and columns["unet_small.toy"][row] in printed
