"""Modes of little variance in their wavenumber's tail."""

import torch

from gapzoo.diffusion.zonal import ZonalCovariance


def test_merged_modes_keep_the_variance_of_each_wavenumber_and_what_stays_is_as_it_was():
    g = torch.Generator().manual_seed(4)
    noise = torch.randn(400, 2, 4, 8, generator=g)
    full = ZonalCovariance.fit([noise + 0.8 * noise.roll(1, -1)], threshold=0.5)
    least = float(full.eigenvalues[: sum(full.ranks)].median())
    keep = full.above(least)
    fewer = full.merged(keep)
    assert sum(fewer.ranks) == sum(int(k.sum()) for k in keep) < sum(full.ranks)
    unit = torch.eye(64).reshape(64, 2, 4, 8)
    dense = [c.apply(unit).reshape(64, 64).double() for c in (full, fewer)]
    waves = torch.fft.rfft(torch.eye(8).double(), norm="ortho")  # (longitude, wavenumber)
    for m in range(5):
        own = torch.kron(torch.eye(8).double() + 0j, waves[:, m : m + 1])
        power = [torch.trace(own.mH @ (d + 0j) @ own).real for d in dense]
        torch.testing.assert_close(power[1], power[0], rtol=1e-4, atol=1e-4)
    stays = full.with_eigenvalues(torch.zeros_like(full.eigenvalues))
    noisy = torch.randn(3, 2, 4, 8, generator=g)
    inside = torch.cat([*keep, torch.zeros(5, dtype=torch.bool)])
    part = stays.filter(noisy, lambda b: inside.to(b))  # of the modes that stay alone
    torch.testing.assert_close(fewer.apply(part), full.apply(part), rtol=1e-4, atol=1e-4)


def test_merging_nothing_changes_nothing():
    full = ZonalCovariance.fit([torch.randn(50, 2, 4, 8)], threshold=0.5)
    fewer = full.merged(full.above(0.0))
    torch.testing.assert_close(fewer.eigenvalues, full.eigenvalues)
    assert fewer.ranks == full.ranks
