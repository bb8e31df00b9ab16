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


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """A command and its arguments; key=value, and an entry, may also stand behind the options."""
    top = parser()
    args, rest = top.parse_known_args(arguments)
    names = ("changes", "options", "words")
    taker = next((n for n in names if isinstance(getattr(args, n, None), list)), None)
    bare = taker == "words" and not args.words and not args.entry
    first = rest[:1] if bare and rest and not rest[0].startswith("-") else []
    keys = rest[len(first) :]
    wrong = [w for w in keys if taker is None or w.startswith("-") or "=" not in w]
    if wrong:
        top.error(f"unrecognized arguments: {' '.join(wrong)}")
    if taker is not None:
        setattr(args, taker, [*getattr(args, taker), *rest])
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the return value is the exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    args = parse(arguments)
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
