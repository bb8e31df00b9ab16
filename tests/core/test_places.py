"""Observations by place, whatever their order."""

from types import SimpleNamespace

import torch

from gapzoo.core.places import Places

OPERATOR = SimpleNamespace(
    latitude=torch.tensor([5.0, -3.0, 5.0, 5.0, -3.0, 8.0]),
    longitude=torch.tensor([1.0, 2.0, 1.0, 1.0, 2.0, 1.0]),
)


def test_observations_of_a_place_stand_together_and_come_back():
    places, values = Places.apart(OPERATOR), torch.arange(1.0, 7.0).repeat(2, 1)
    by_place = {
        (float(a), float(b)): sorted(r[r >= 0].tolist())
        for a, b, r in zip(places.latitude, places.longitude, places.rows, strict=True)
    }
    assert by_place == {(5.0, 1.0): [0, 2, 3], (-3.0, 2.0): [1, 4], (8.0, 1.0): [5]}
    assert places.of(values).sum() == values.sum() and places.of(values).shape == (2, 3, 3)
    assert torch.equal(places.back(places.of(values)), values)


def test_a_place_with_fewer_has_the_inverse_of_its_own():
    places = Places.apart(OPERATOR)
    full = torch.tensor([[2.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 4.0]])
    found = Places(places.rows, full.expand(3, -1, -1), places.latitude, places.longitude)
    for row, inverse in zip(found.rows, found.precision(), strict=True):
        n = int((row >= 0).sum())
        torch.testing.assert_close(inverse[:n, :n], full[:n, :n].inverse())
        assert inverse[n:].abs().sum() == inverse[:, n:].abs().sum() == 0
