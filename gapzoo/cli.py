"""The command line: bad input is one line and exit code 2."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from rich.console import Console

from gapzoo.commands import add_all
from gapzoo.core import GapzooError

ERRORS = Console(stderr=True, soft_wrap=True, highlight=False)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser("gapzoo", description="Generative assimilation and prediction")
    add_all(top.add_subparsers(required=True, metavar="COMMAND"))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the return value is the exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    args = parser().parse_args(arguments)
    try:
        args.run_command(args)
    except GapzooError as error:
        ERRORS.print(f"gapzoo: {error}", markup=False)
        return 2
    except KeyboardInterrupt:
        ERRORS.print("gapzoo: stopped; what was written is kept, and the command can go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
