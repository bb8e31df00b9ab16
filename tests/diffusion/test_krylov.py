import pytest
import torch

from gapzoo.diffusion.krylov import SOLVERS, cg, gmres


def system(symmetric, count=3, n=12):
    g = torch.Generator().manual_seed(0)
    root = torch.randn(count, n, n, generator=g)
    spd = root @ root.mT / n + 0.5 * torch.eye(n)
    matrix = spd if symmetric else spd + 0.5 * (root - root.mT)
    b = torch.randn(count, n, generator=g)
    return matrix, b, lambda v: torch.einsum("bij,bj->bi", matrix, v)


@pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)
def test_as_many_iterations_as_unknowns_solve_it(solve):
    matrix, b, apply = system(symmetric=True)
    expected = torch.linalg.solve(matrix, b)
    torch.testing.assert_close(solve(apply, b, 12), expected, rtol=1e-3, atol=1e-4)


def test_gmres_solves_what_is_not_symmetric():
    matrix, b, apply = system(symmetric=False)
    torch.testing.assert_close(
        gmres(apply, b, 12), torch.linalg.solve(matrix, b), rtol=1e-3, atol=1e-4
    )


def test_gmres_has_the_smallest_residual_over_the_krylov_space():
    matrix, b, apply = system(symmetric=False)
    x = gmres(apply, b, 3)
    space = torch.stack([b, apply(b), apply(apply(b))], 2)
    best = torch.linalg.lstsq((matrix @ space).double(), b[..., None].double()).solution
    least = (b - (matrix @ space @ best.float())[..., 0]).norm(dim=1)
    torch.testing.assert_close((b - apply(x)).norm(dim=1), least, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)
def test_a_perfect_preconditioner_needs_one_iteration(solve):
    matrix, b, apply = system(symmetric=True)
    inverse = torch.linalg.inv(matrix)
    x = solve(apply, b, 1, lambda v: torch.einsum("bij,bj->bi", inverse, v))
    torch.testing.assert_close(apply(x), b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)
def test_members_do_not_mix(solve):
    matrix, b, apply = system(symmetric=True)
    alone = solve(lambda v: v @ matrix[1].T, b[1:2], 4)
    torch.testing.assert_close(solve(apply, b, 4)[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)
def test_iterations_after_the_space_is_exhausted_do_no_harm(solve):
    b = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(solve(lambda v: 4 * v, b, 6), b / 4)


def test_cg_stops_where_the_matrix_is_not_positive():
    b = torch.tensor([[1.0, 1.0]])
    assert torch.equal(cg(lambda v: -v, b, 5), torch.zeros(1, 2))


def test_cg_stops_each_member_where_its_residual_is_small_enough():
    """The looser member is what few iterations give; the other goes on, as if alone."""
    _, b, apply = system(symmetric=True)
    exact = cg(apply, b, 40)
    enough = (1e-2 * b.norm(dim=1, keepdim=True)) ** 2
    enough[1:] = 0.0
    x = cg(apply, b, 40, enough=enough)
    left = (b - apply(x)).norm(dim=1)
    assert left[0] <= 1.01e-2 * b[0].norm()
    torch.testing.assert_close(x[1:], exact[1:], rtol=1e-4, atol=1e-5)
    fewer = next(n for n in range(41) if torch.allclose(cg(apply, b, n)[0], x[0], atol=1e-6))
    assert fewer < 12
