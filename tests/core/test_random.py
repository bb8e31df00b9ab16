"""Member k is the same alone and among many; forks and seeds are independent."""

import pytest
import torch
from scipy import stats

from gapzoo.core import MemberGenerator
from gapzoo.core.random import derive_seed


def test_a_member_alone_equals_itself_among_many():
    many = MemberGenerator(7, 6)
    first, second, uniform = many.randn((6, 2, 3)), many.randn((6, 4)), many.rand((6, 5))
    for k in (0, 3, 5):
        alone = MemberGenerator(7, [k])
        assert torch.equal(alone.randn((1, 2, 3))[0], first[k])
        assert torch.equal(alone.randn((1, 4))[0], second[k])
        assert torch.equal(alone.rand((1, 5))[0], uniform[k])


def test_parts_make_the_whole():
    whole = MemberGenerator(3, 5).randn((5, 8))
    parts = MemberGenerator(3, 5).split(2)
    assert [g.members for g in parts] == [(0, 1), (2, 3), (4,)]
    assert torch.equal(torch.cat([g.randn((len(g), 8)) for g in parts]), whole)


def test_forks_depend_on_their_keys_alone():
    base = MemberGenerator(3, 2)
    before = base.fork("cycle", 4).randn((2, 100))
    base.randn((2, 7))  # what was drawn from the parent does not matter
    assert torch.equal(base.fork("cycle", 4).randn((2, 100)), before)
    other = base.fork("cycle", 5).randn((2, 100))
    assert abs(torch.corrcoef(torch.stack([before[0], other[0]]))[0, 1]) < 0.4
    alone = MemberGenerator(3, [1]).fork("cycle", 4).randn((1, 100))
    assert torch.equal(alone[0], before[1])


def test_members_are_standard_normal_and_independent():
    draws = MemberGenerator(0, 40).randn((40, 500))
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(draws) - torch.eye(40)
    assert correlation.square().sum().item() * 500 / (40 * 39) == pytest.approx(1, abs=0.15)


def test_centred_numbers_sum_to_zero_keep_their_variance_and_know_no_batch():
    plain, whole = MemberGenerator(4, 5), MemberGenerator(4, 5).centred()
    draws = whole.randn((5, 4000))
    expected = plain.randn((5, 4000))
    expected = expected - expected.mean(0)
    assert torch.equal(draws, expected) and draws.sum(0).abs().max() < 1e-5
    assert draws.var(0).mean().item() == pytest.approx(1, abs=0.03)
    parts = [g.randn((len(g), 4000)) for g in MemberGenerator(4, 5).centred().split(2)]
    assert torch.equal(torch.cat(parts), draws)
    forked = [g.fork("a").randn((len(g), 3)) for g in whole.split(2)]
    assert torch.cat(forked).sum(0).abs().max() < 1e-5
    alone = MemberGenerator(4, 5).fork("a").centred().randn((5, 3))
    assert torch.equal(torch.cat(forked), alone)
    with pytest.raises(ValueError, match="a single member"):
        MemberGenerator(4, 1).centred()


def test_the_global_stream_is_left_alone():
    state = torch.random.get_rng_state()
    MemberGenerator(1, 3).randn((3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_seeds_are_told_apart_and_stay_as_they_are():
    """The second number is written down: a change would change every published run."""
    seeds = {derive_seed(s, *keys) for s in (0, 1) for keys in ((), ("a",), ("a", 1), ("b", 1))}
    assert len(seeds) == 8 and all(0 <= s < 2**63 for s in seeds)
    assert derive_seed(1, "member", 2) == 1878254144679387228
    with pytest.raises(ValueError, match=r"shape\[0\] is 3, but this generator has 2 members"):
        MemberGenerator(0, 2).randn((3, 1))
