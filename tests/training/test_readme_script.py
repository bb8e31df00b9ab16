"""The README's training script is short, and runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

from models import toy

README = Path(__file__).parents[2] / "README.md"


def script() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return next(block for block in blocks if "lightning.Trainer" in block)


def test_it_trains_with_a_plain_trainer(tmp_path):
    """On another archive, whose years are those of the default periods, and for fewer steps."""
    years = {"start": "2003-06-01", "end": "2004-06-30", "train": ("2003-06-01", "2003-12-31")}
    archive = toy(tmp_path / "toy.zarr", **years)
    text = script()
    assert len(text.strip().splitlines()) < 15
    text = text.replace("archives/speedy-t21.zarr", str(archive.path))
    text = re.sub(r"max_steps=\d+", "max_steps=2, accelerator='cpu', logger=False", text)
    text += "\nassert loop.global_step == 2 if 'loop' in globals() else module.trainer.global_step"
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
