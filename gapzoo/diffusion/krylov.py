"""Krylov solvers for batches of linear systems ``M x = b``, each member with its own scalars.

Members never mix, so that a member's solution is the same in any batch. The iterations are few and
bounded: an iteration costs a backward pass through a network. Both start from zero and take a
preconditioner, an approximate inverse of M, which for GMRES may change from call to call (flexible
GMRES, Saad 1993).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Linear = Callable[[Tensor], Tensor]

BREAKDOWN = 1e-6
"""A new direction shorter than this, relative to its image, is rounding: the space is exhausted."""


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def gmres(matrix: Linear, b: Tensor, iterations: int, precondition: Linear | None = None) -> Tensor:
    """Smallest residual over the Krylov space (Saad & Schultz 1986); M need not be symmetric.

    Args:
        matrix: v (B,N) -> M v (B,N).
        b: (B,N) right-hand side.
        iterations: dimension of the space.
        precondition: v (B,N) -> about M^-1 v, or None.

    Returns:
        (B,N) solution.
    """
    beta = b.norm(dim=1, keepdim=True)
    basis, directions = [_unit(b, beta, beta)], []
    h = b.new_zeros(len(b), iterations + 1, iterations)
    for j in range(iterations):
        directions.append(basis[j] if precondition is None else precondition(basis[j]))
        w = matrix(directions[j])
        size = w.norm(dim=1, keepdim=True)
        for i, v in enumerate(basis):
            h[:, i, j : j + 1] = _dot(v, w)
            w = w - h[:, i, j : j + 1] * v
        length = w.norm(dim=1, keepdim=True)
        length = torch.where(length > BREAKDOWN * size, length, 0.0)
        h[:, j + 1, j : j + 1] = length
        basis.append(_unit(w, length, size))
    return _combine(h, beta, directions)


def _unit(w: Tensor, length: Tensor, size: Tensor) -> Tensor:
    """``w / length``, or zero where there is nothing left."""
    empty = (length <= BREAKDOWN * size) | (length == 0)
    return torch.where(empty, 0.0, w / torch.where(empty, 1.0, length))


def _combine(h: Tensor, beta: Tensor, directions: list[Tensor]) -> Tensor:
    """Least-squares weights of the directions by normal equations in float64, and their sum.

    The small ridge gives directions of an exhausted space the weight 0.
    """
    h = h.double()
    gram = h.mT @ h
    ridge = 1e-13 * gram.diagonal(dim1=1, dim2=2).sum(1) + 1e-30
    gram = gram + ridge[:, None, None] * torch.eye(len(directions)).to(gram)
    weights = torch.linalg.solve(gram, h[:, 0, :] * beta.double())
    return torch.einsum("bj,jbn->bn", weights.to(beta), torch.stack(directions))


def cg(
    matrix: Linear,
    b: Tensor,
    iterations: int,
    precondition: Linear | None = None,
    enough: Tensor | float = 0.0,
) -> Tensor:
    """Conjugate gradients (Hestenes & Stiefel 1952), for symmetric positive M; else see ``gmres``.

    Arguments and result as in ``gmres``. A member stops where M is not positive along a direction,
    or where its residual r has ``r^T P r <= enough``, () or (B,1), P being the preconditioner.
    """
    x, r = torch.zeros_like(b), b
    z = r if precondition is None else precondition(r)
    p, rho = z, _dot(r, z)
    for _ in range(iterations):
        going = rho > enough
        if not going.any():
            break
        image = matrix(p)
        curvature = _dot(p, image)
        goes = going & (curvature > 0)
        step = torch.where(goes, rho / torch.where(goes, curvature, 1.0), 0.0)
        x, r = x + step * p, r - step * image
        z = r if precondition is None else precondition(r)
        new = _dot(r, z)
        p = z + torch.where(rho > 0, new / torch.where(rho > 0, rho, 1.0), 0.0) * p
        rho = new
    return x


SOLVERS = {"gmres": gmres, "cg": cg}
