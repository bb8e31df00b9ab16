"""Checkpoints on the Hugging Face hub: ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``.

Only the files that a checkpoint is made of are fetched, into huggingface_hub's own cache; what is
in the cache is found there without a network. Nothing of a repository is ever run.
"""

from __future__ import annotations

import re
from pathlib import Path

from gapzoo.core import GapzooError

HUB = "hf://"
PATTERNS = ["checkpoint.json", "recipe.yaml", "card.md", "*.safetensors"]
FORM = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def fetch(address: str) -> Path:
    """Folder, in the local cache, of a checkpoint on the hub.

    Raises:
        GapzooError: for an address of another form, without the extra ``hub``, or where the
            checkpoint is neither in the cache nor to be had.
    """
    found = FORM.fullmatch(address)
    if found is None:
        raise GapzooError(f"'{address}' is no address on the hub; write hf://OWNER/NAME[@REVISION]")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError:
        raise GapzooError(f"'{address}' needs the hub's client: pip install gapzoo[hub]") from None
    try:
        folder = snapshot_download(
            found["repository"], revision=found["revision"], allow_patterns=PATTERNS
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise GapzooError(f"'{address}' cannot be fetched: {reason}") from None
    if not (Path(folder) / "checkpoint.json").is_file():
        raise GapzooError(f"'{address}' holds no checkpoint.json; is it a gapzoo checkpoint?")
    return Path(folder)
