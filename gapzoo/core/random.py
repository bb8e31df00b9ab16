"""Random numbers by member: member k is the same whether drawn alone or among a hundred."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor


def derive_seed(seed: int, *keys: object) -> int:
    """A 63-bit seed that depends on ``seed`` and every key (strings, numbers, times)."""
    text = "/".join(str(part) for part in (seed, *keys))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


class MemberGenerator:
    """One CPU random stream a member, so that results do not depend on the batch they share.

    Args:
        seed: seed of the run.
        members: the members' numbers, or how many there are (0, 1, ...).
        device: where the drawn numbers go; they are drawn on the CPU, hence alike everywhere.
    """

    def __init__(
        self, seed: int, members: int | Sequence[int] = 1, device: torch.device | str = "cpu"
    ) -> None:
        numbers = range(members) if isinstance(members, int) else members
        self.seed, self.members, self.device = seed, tuple(numbers), torch.device(device)
        self._streams = [
            torch.Generator().manual_seed(derive_seed(seed, "member", m)) for m in self.members
        ]

    def __len__(self) -> int:
        return len(self.members)

    def randn(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers, float32; ``shape[0]`` is the number of members."""
        self._check(shape)
        draws = [torch.randn(tuple(shape[1:]), generator=g) for g in self._streams]
        return torch.stack(draws).to(self.device)

    def mixed(self, shape: Sequence[int]) -> Any:
        """As ``randn``, or a sum whose ``grid()`` that is, for those who take either."""
        return self.randn(shape)

    def rand(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), float32; ``shape[0]`` is the number of members."""
        self._check(shape)
        draws = [torch.rand(tuple(shape[1:]), generator=g) for g in self._streams]
        return torch.stack(draws).to(self.device)

    def fork(self, *keys: object) -> MemberGenerator:
        """Independent streams of the same members, for a task's step, cycle or initial time."""
        return MemberGenerator(derive_seed(self.seed, *keys), self.members, self.device)

    def split(self, chunk: int) -> list[MemberGenerator]:
        """Generators of ``chunk`` members each, fresh at their start; together all members."""
        numbers = self.members
        parts = [numbers[i : i + chunk] for i in range(0, len(numbers), chunk)]
        return [MemberGenerator(self.seed, part, self.device) for part in parts]

    def centred(self) -> CentredGenerator:
        """The same streams, fresh at their start, whose normal numbers sum to zero."""
        return CentredGenerator(self.seed, self.members, self.device, self.members)

    def to(self, device: torch.device | str) -> Self:
        """The same streams, whose numbers go to another device."""
        other = copy.copy(self)
        other.device = torch.device(device)
        return other

    def _check(self, shape: Sequence[int]) -> None:
        if shape[0] != len(self):
            raise ValueError(f"shape[0] is {shape[0]}, but this generator has {len(self)} members")


class CentredGenerator(MemberGenerator):
    """Streams whose normal numbers sum to zero over an ensemble.

    Their sample variance, over M - 1, is 1 as that of independent ones. So the mean of an ensemble
    that is drawn in one step is not moved by the noise of few members, which a cycle would carry
    from analysis to analysis (as deterministic square-root filters avoid). A member's numbers
    depend on how many there are, not on the batch that they share.

    Args:
        seed, members, device: see MemberGenerator.
        everyone: the numbers of the whole ensemble, 2 or more, ``members`` among them.
    """

    def __init__(
        self,
        seed: int,
        members: Sequence[int],
        device: torch.device | str,
        everyone: Sequence[int],
    ) -> None:
        super().__init__(seed, members, device)
        if len(everyone) < 2:
            raise ValueError("the noise of a single member sums to zero only where it is none")
        self.everyone = tuple(everyone)
        self._whole = MemberGenerator(seed, self.everyone)

    def randn(self, shape: Sequence[int]) -> Tensor:
        """As of MemberGenerator, less the ensemble's mean."""
        self._check(shape)
        draws = self._whole.randn((len(self.everyone), *shape[1:]))
        rows = [self.everyone.index(member) for member in self.members]
        return (draws - draws.mean(0))[rows].to(self.device)

    def fork(self, *keys: object) -> CentredGenerator:
        """See MemberGenerator."""
        seed = derive_seed(self.seed, *keys)
        return CentredGenerator(seed, self.members, self.device, self.everyone)

    def split(self, chunk: int) -> list[MemberGenerator]:
        """See MemberGenerator."""
        parts = super().split(chunk)
        return [CentredGenerator(self.seed, p.members, self.device, self.everyone) for p in parts]


class MixedGenerator(MemberGenerator):
    """Streams whose normal numbers are a mixture of two others': successive steps that go together.

    Args:
        now, before: of the same members.
        mix: of their normal numbers (M, ...), again standard normal ones, or what has such a
            ``grid()``.
    """

    def __init__(
        self, now: MemberGenerator, before: MemberGenerator, mix: Callable[[Tensor, Tensor], Any]
    ) -> None:
        if now.members != before.members:
            raise ValueError(f"members {now.members} with {before.members}")
        super().__init__(now.seed, now.members, now.device)
        self.now, self.before, self.mix = now, before, mix

    def randn(self, shape: Sequence[int]) -> Tensor:
        """The mixture of both."""
        found = self.mixed(shape)
        return found if isinstance(found, Tensor) else found.grid()  # type: ignore[no-any-return]

    def mixed(self, shape: Sequence[int]) -> Any:
        """The mixture of both, as it is."""
        return self.mix(self.now.randn(shape), self.before.randn(shape))

    def rand(self, shape: Sequence[int]) -> Tensor:
        """Of ``now`` alone."""
        return self.now.rand(shape)

    def fork(self, *keys: object) -> MemberGenerator:
        """See MemberGenerator."""
        return MixedGenerator(self.now.fork(*keys), self.before.fork(*keys), self.mix)

    def split(self, chunk: int) -> list[MemberGenerator]:
        """See MemberGenerator."""
        parts = zip(self.now.split(chunk), self.before.split(chunk), strict=True)
        return [MixedGenerator(now, before, self.mix) for now, before in parts]

    def to(self, device: torch.device | str) -> MixedGenerator:
        """See MemberGenerator."""
        return MixedGenerator(self.now.to(device), self.before.to(device), self.mix)


class _Joined(MemberGenerator):
    """Members of several generators as one."""

    def __init__(self, parts: Sequence[MemberGenerator]) -> None:
        members = [m for part in parts for m in part.members]
        super().__init__(parts[0].seed, members, parts[0].device)
        self.parts = list(parts)

    def randn(self, shape: Sequence[int]) -> Tensor:
        self._check(shape)
        return torch.cat([p.randn((len(p), *shape[1:])) for p in self.parts])

    def rand(self, shape: Sequence[int]) -> Tensor:
        self._check(shape)
        return torch.cat([p.rand((len(p), *shape[1:])) for p in self.parts])

    def fork(self, *keys: object) -> MemberGenerator:
        return _Joined([p.fork(*keys) for p in self.parts])

    def to(self, device: torch.device | str) -> _Joined:
        return _Joined([p.to(device) for p in self.parts])

    def split(self, chunk: int) -> list[MemberGenerator]:
        singles = [one for p in self.parts for one in p.split(1)]
        return [_Joined(singles[i : i + chunk]) for i in range(0, len(singles), chunk)]


def joined(parts: Sequence[MemberGenerator]) -> MemberGenerator:
    """The members of several generators, each with its own streams, as one generator."""
    return parts[0] if len(parts) == 1 else _Joined(parts)
