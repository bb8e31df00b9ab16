import math

import pytest
import torch

from gapzoo.baselines.localisation import channel_taper, chord, gaspari_cohn, sphere_points
from gapzoo.core import Channels, GapzooError


def test_gaspari_cohn_known_values():
    # Eq. 4.10 at r = d/c: 1, 0.5: 263/384, 1: 5/24, 1.5: 47/1152... by hand, 2: 0.
    c = 3.0
    d = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 5.0], dtype=torch.float64) * c
    taper = gaspari_cohn(d, c / math.sqrt(10 / 3))
    expected = [1.0, 0.68489583333, 5 / 24, 0.01649305555, 0.0, 0.0]
    torch.testing.assert_close(taper, torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(gaspari_cohn(d, math.inf), torch.ones_like(d))
    with pytest.raises(GapzooError, match="positive"):
        gaspari_cohn(d, 0.0)


def test_chords_of_known_places():
    points = sphere_points(torch.tensor([90.0, 0.0, -90.0]), torch.tensor([0.0, 30.0, 0.0]))
    radius = 6.371229e6
    expected = [[0, math.sqrt(2), 2], [math.sqrt(2), 0, math.sqrt(2)], [2, math.sqrt(2), 0]]
    torch.testing.assert_close(
        chord(points, points) / radius, torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("length", [1e6, 4e6, 1e7])
def test_taper_is_positive_semidefinite_on_the_sphere(length):
    z = torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = z / z.norm(dim=1, keepdim=True)
    assert torch.linalg.eigvalsh(gaspari_cohn(chord(z, z), length)).min() > -1e-6


def test_channel_taper():
    channels = Channels(["temperature@0.5", "temperature@1", "surface_pressure"], "sigma")
    taper = channel_taper(channels, vertical=0.5, cross=0.3)
    assert taper[1, 2] == pytest.approx(0.3) and taper[0, 0] == 1 and taper[2, 2] == 1
    near = gaspari_cohn(torch.tensor(math.log(2)), 0.5)
    assert taper[0, 1] == pytest.approx(float(near), rel=1e-4)
    assert taper[0, 2] == pytest.approx(0.3 * float(near), rel=1e-4)
