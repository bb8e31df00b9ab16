"""What holds for every registered evaluator because it is registered."""

import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import samples_by_region

same = torch.testing.assert_close
EXACT = {"rtol": 1e-9, "atol": 1e-9, "equal_nan": True}
FLOAT32 = {"rtol": 1e-6, "atol": 1e-6, "equal_nan": True}
"""Where rows of another length are averaged over members in another order."""


def rows_of(found, metric, keep):
    """Rows of a map, whose others must be NaN; a score that has no rows as it is."""
    if "latitude" not in metric.bins:
        return found
    axis = found.ndim - len(metric.bins) + metric.bins.index("latitude")
    rows = found.movedim(axis, 0)
    assert torch.isnan(rows[~keep]).all()
    return rows[keep].movedim(0, axis)


@pytest.mark.parametrize("name", EVALUATORS)
def test_streaming_over_chunks_gives_the_whole(case, name):
    metric = case.build(name)
    for part in (slice(0, 1), slice(1, 4), slice(4, 5)):
        case.updated(metric, part)
    same(metric.compute(), case.score(name), **EXACT)


@pytest.mark.parametrize("name", EVALUATORS)
def test_merged_halves_give_the_whole(case, name):
    first, second = (case.updated(case.build(name), s) for s in (slice(0, 2), slice(2, 5)))
    first.merge_state(second)
    same(first.compute(), case.score(name), **EXACT)


@pytest.mark.parametrize("name", EVALUATORS)
def test_order_of_members_does_not_matter(case, name):
    before = case.score(name)
    case.forecast = case.forecast[:, torch.tensor([3, 1, 5, 0, 4, 2])]
    phase = name == "annual_cycle"  # days, of small amplitudes too
    same(case.score(name), before, rtol=1e-5, atol=1e-3 if phase else 1e-6, equal_nan=True)


@pytest.mark.parametrize("name", EVALUATORS)
def test_masked_samples_count_as_if_absent(case, name):
    expected = case.score(name, slice(0, 3))
    mask = torch.tensor([True, True, True, False, False]).view(5, 1, 1, 1, 1)
    case.truth[3:] = torch.nan
    same(case.updated(case.build(name), mask=mask).compute(), expected, **EXACT)


@pytest.mark.parametrize("name", EVALUATORS)
def test_masked_rows_count_as_if_absent(case, name):
    mask = torch.ones(6, 1, dtype=torch.bool)
    mask[0] = mask[4] = False
    keep = mask[:, 0]
    whole = case.build(name)
    case.truth[..., ~keep, :] = torch.nan
    case.forecast[..., ~keep, :] = torch.nan
    found = case.updated(whole, mask=mask).compute()
    case.truth, case.forecast = case.truth[..., keep, :], case.forecast[..., keep, :]
    area = case.grid.area_weights[keep.numpy()]
    same(rows_of(found, whole, keep), case.score(name, area_weights=area), **FLOAT32)


@pytest.mark.parametrize("name", EVALUATORS)
def test_a_region_of_rows_is_those_rows(case, name):
    region = np.zeros((6, 8))
    region[2:4] = 1
    found = case.score(name, region=region)
    case.truth, case.forecast = case.truth[..., 2:4, :], case.forecast[..., 2:4, :]
    inside = torch.from_numpy(region[:, 0] > 0)
    found = rows_of(found, case.build(name), inside)
    same(found, case.score(name, area_weights=case.grid.area_weights[2:4]), **FLOAT32)


@pytest.mark.parametrize("name", EVALUATORS)
def test_inputs_are_left_as_they_were(case, name):
    forecast, truth = case.forecast.clone(), case.truth.clone()
    case.score(name)
    assert torch.equal(case.forecast, forecast) and torch.equal(case.truth, truth)


@pytest.mark.parametrize("name", EVALUATORS)
def test_scale_of_area_weights_does_not_matter(case, name):
    found = case.score(name, area_weights=case.grid.area_weights * 5.1e14)
    same(found, case.score(name), **EXACT)


@pytest.mark.parametrize("name", EVALUATORS)
def test_reset_forgets(case, name):
    metric = case.updated(case.build(name), slice(0, 2))
    metric.reset()
    same(case.updated(metric, slice(2, 5)).compute(), case.score(name, slice(2, 5)), **EXACT)


@pytest.mark.parametrize(
    "name", sorted(set(EVALUATORS) - {"finite_share", "first_nonfinite", "reliability"})
)
def test_a_diverged_forecast_never_gets_a_number(case, name):
    case.forecast[1, 2, 0, :, 3, 4] = torch.nan
    found = case.score(name)
    assert torch.isnan(found[0] if name != "drift" else found).flatten().any()
    if name != "drift":
        assert torch.isfinite(found[1]).all()


def test_a_diverged_forecast_has_no_reliability(case):
    case.forecast[1, 2, 0, :, 3, 4] = torch.nan
    assert torch.isnan(case.score("reliability")[0]).all()


@pytest.mark.parametrize("name", EVALUATORS)
def test_bad_input_is_named(case, name):
    metric, climatology = case.build(name), case.climatology(case.build(name))
    series = case.series(metric)
    with pytest.raises(GapzooError, match=r"forecast \(5, 2, 9, 6, 8\) must be \(B,M,\*E,H,W\)"):
        metric.update(case.truth, case.truth, climatology=climatology, **series)
    with pytest.raises(GapzooError, match="truth's grid"):
        other = case.build(name, area_weights=[1.0, 1.0, 1.0])
        other.update(case.forecast, case.truth, climatology=climatology)
    with pytest.raises(GapzooError, match=r"mask is torch\.float32"):
        metric.update(case.forecast, case.truth, torch.ones(6, 8), climatology)
    with pytest.raises(GapzooError, match="does not broadcast"):
        metric.update(case.forecast, case.truth, torch.ones(5, 8, dtype=torch.bool), climatology)
    case.truth[0, 1, 2, 3, 4] = torch.nan
    with pytest.raises(GapzooError, match="the truth has 1 non-finite values"):
        case.updated(metric)


@pytest.mark.parametrize("name", EVALUATORS)
def test_needs_are_named(case, name):
    metric = case.build(name)
    if metric.needs_climatology:
        with pytest.raises(GapzooError, match="needs climatology"):
            metric.update(case.forecast, case.truth)
        with pytest.raises(GapzooError, match="does not fit the truth"):
            metric.update(case.forecast, case.truth, climatology=torch.zeros(6, 8))
        holed, mask = case.climatology(metric), torch.ones(6, 8, dtype=torch.bool)
        holed[..., 2, 3], mask[2, 3] = torch.nan, False
        with pytest.raises(GapzooError, match="the climatology has"):
            metric.update(case.forecast, case.truth, climatology=holed)
        metric.update(case.forecast, case.truth, mask, holed)
        assert torch.isfinite(metric.compute()).any()
        assert torch.isnan(metric.compute()).any() == ("latitude" in metric.bins)
    if metric.least_members > 1:
        with pytest.raises(GapzooError, match="at least 2 members, the forecast has 1"):
            metric.update(case.forecast[:, :1], case.truth)


def test_bad_weights_are_named(case):
    with pytest.raises(GapzooError, match="area_weights must be"):
        case.build("rmse", area_weights=[1.0, -1.0])
    with pytest.raises(GapzooError, match=r"region weights are \(3, 8\)"):
        case.build("rmse", region=np.ones((3, 8)))


@pytest.mark.parametrize("name", ["crps", "energy_score", "brier", "rpss"])
def test_unknown_estimator_is_named(case, name):
    with pytest.raises(GapzooError, match=r"no estimator 'fare'; did you mean 'fair'\?"):
        case.build(name, estimator="fare")


def test_two_processes_reduce_to_the_whole(case, tmp_path):
    expected = {name: case.score(name).numpy() for name in EVALUATORS}
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_worker, args=(r, case, tmp_path)) for r in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    for rank in (0, 1):
        with np.load(tmp_path / f"{rank}.npz") as found:
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9)


def _worker(rank, case, folder):
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    part = (slice(0, 2), slice(2, 5))[rank]
    found = {name: case.score(name, part).numpy() for name in EVALUATORS}
    np.savez(folder / f"{rank}.npz", **found)
    dist.destroy_process_group()


BANDS = ([1, 1, 1, 1, 1, 1], [0, 0.3, 1, 1, 0, 0], [0, 0, 0, 0.2, 1, 1])


@pytest.mark.parametrize("name", EVALUATORS)
@pytest.mark.parametrize("masked", [False, True])
def test_regions_at_once_are_each_alone(case, name, masked):
    regions = [np.repeat(np.array(rows, float)[:, None], 8, 1) for rows in BANDS]
    mask = torch.ones(6, 8, dtype=torch.bool)
    if masked:
        mask[4] = False
        case.truth[..., 4, :] = torch.nan
    metrics = [case.build(name, region=region) for region in regions]
    given = case.climatology(metrics[0]), case.series(metrics[0])
    inputs = (case.forecast, case.truth, mask if masked else None, given[0])
    together = samples_by_region(metrics, *inputs, **given[1])
    for metric, sums in zip(metrics, together, strict=True):
        alone = metric.samples(*inputs, **given[1])
        assert sums.keys() == alone.keys()
        for key, value in alone.items():
            same(sums[key], value, rtol=1e-12, atol=1e-12, equal_nan=True)
