"""Sparse experts: each token is handled by k of E small networks (Shazeer et al. 2017).

With router logits l = W x and p = softmax(l), a token's output is

    y = sum over its k largest e of  w_e f_e(x),   w_e = p_e / (sum of the chosen p).

No token is dropped and none sees another, so that samples do not depend on their batch. Two losses
keep the router in order, both means over tokens, f_e being the share of all choices that fell on e:

    balance = E sum_e f_e mean(p_e)            1 where use is even (Fedus et al. 2022)
    z = mean(logsumexp(l)^2)                   keeps logits small (Zoph et al. 2022)
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapzoo.core import GapzooError


class SparseExperts(nn.Module):
    """Tokens (B, N, D) to the same.

    Args:
        size: D.
        hidden: features inside an expert.
        experts: E.
        active: k.
    """

    def __init__(self, size: int, hidden: int, experts: int, active: int) -> None:
        super().__init__()
        if not 1 <= active <= experts:
            raise GapzooError(f"{active} active of {experts} experts; choose 1 to {experts}")
        self.active = active
        self.router = nn.Linear(size, experts, bias=False)
        self.inward = nn.Parameter(torch.empty(experts, size, hidden))
        self.outward = nn.Parameter(torch.empty(experts, hidden, size))
        nn.init.uniform_(self.inward, -(size**-0.5), size**-0.5)
        nn.init.uniform_(self.outward, -(hidden**-0.5), hidden**-0.5)
        self.balance = self.z = torch.zeros(())
        self.use = torch.zeros(experts)
        """(E,) share of the choices that fell on each expert in the last pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Route, apply, add up."""
        tokens = x.flatten(0, -2)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(tokens.float(), self.router.weight.float())
        share = logits.softmax(-1)
        weight, chosen = share.topk(self.active, -1)
        self._account(logits, share, chosen)
        weight = weight / weight.sum(-1, keepdim=True)
        order = chosen.flatten().argsort(stable=True)
        token = order // self.active
        counts = chosen.flatten().bincount(minlength=share.shape[-1])
        kind = torch.get_autocast_dtype(x.device.type) if _autocast(x) else x.dtype
        y = self._run(tokens[token].to(kind), counts) * weight.flatten()[order, None].to(kind)
        return torch.zeros_like(tokens, dtype=kind).index_add(0, token, y).reshape(x.shape)

    def _run(self, x: Tensor, counts: Tensor) -> Tensor:
        inward, outward = self.inward.to(x.dtype), self.outward.to(x.dtype)
        multiply = grouped if _has_grouped(x) else looped
        return multiply(F.gelu(multiply(x, inward, counts)), outward, counts)

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseExperts:
        """Copies leave the graph of the last pass behind."""
        other = self.__new__(type(self))
        memo[id(self)] = other
        own = {**self.__dict__, "balance": self.balance.detach(), "z": self.z.detach()}
        other.__dict__ = copy.deepcopy(own, memo)
        return other

    def _account(self, logits: Tensor, share: Tensor, chosen: Tensor) -> None:
        experts = share.shape[-1]
        use = chosen.flatten().bincount(minlength=experts) / chosen.numel()
        self.use = use.detach()
        self.balance = experts * (use * share.mean(0)).sum()
        self.z = logits.logsumexp(-1).square().mean()


def looped(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Rows (T, D), sorted by expert, times each expert's (E, D, F) matrix: (T, F). Exact."""
    parts = x.split(counts.tolist())
    return torch.cat([part @ matrix for part, matrix in zip(parts, weight, strict=True)])


def grouped(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """The same in one kernel."""
    return F.grouped_mm(x, weight, offs=counts.cumsum(0).to(torch.int32))


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def _has_grouped(x: Tensor) -> bool:
    return x.is_cuda and x.dtype == torch.bfloat16 and hasattr(F, "grouped_mm")
