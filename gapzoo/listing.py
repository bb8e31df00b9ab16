"""What there is to choose from, by kind."""

from __future__ import annotations

from gapzoo.checkpoint import FOLDERS
from gapzoo.core import Registry


def registries(pattern: str = "*") -> dict[str, list[str]]:
    """Registered names by kind, and the checkpoints at hand, that match a shell-style pattern."""
    import fnmatch

    from gapzoo.data import SOURCES
    from gapzoo.denoisers import DENOISERS
    from gapzoo.diffusion import SCHEDULES
    from gapzoo.diffusion.guidance import GUIDANCE
    from gapzoo.diffusion.samplers import SAMPLERS
    from gapzoo.evaluators import EVALUATORS
    from gapzoo.forecasters import FORECASTERS, NETWORKS

    known: list[Registry] = [DENOISERS, NETWORKS, SCHEDULES, SAMPLERS, GUIDANCE, FORECASTERS]
    known += [SOURCES, EVALUATORS]
    found = {registry.kind: registry.names(pattern) for registry in known}
    saved = {p.parent.name for f in FOLDERS for p in f.glob("*/checkpoint.json")}
    found["checkpoint"] = sorted(fnmatch.filter(saved, pattern))
    return {kind: names for kind, names in found.items() if names}


def list_models(pattern: str = "*") -> list[str]:
    """Registered networks, denoisers and forecasters, that match a pattern."""
    from gapzoo.denoisers import DENOISERS
    from gapzoo.forecasters import NETWORKS

    return sorted([*DENOISERS.names(pattern), *NETWORKS.names(pattern)])
