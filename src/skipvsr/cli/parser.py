"""The parser of the command line: errors show the usage of the command that was meant, and suggest options that exist."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, NoReturn

# Options whose similarity to what was typed (0: nothing in common, 1: equal) is lower are not suggested, nor those that are
# so much less similar than the best one.
_MIN_SIMILARITY = 0.4
_LESS_THAN_BEST = 0.1


class CommandParser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose subcommands refuse unknown options themselves.

    argparse hands what a subcommand does not know back to the main parser, which then shows its own usage: that of
    `skipvsr`, and not that of `skipvsr upscale`.
    """

    def __init__(self, **options: Any) -> None:
        def formatter(prog: str) -> argparse.HelpFormatter:
            return argparse.HelpFormatter(prog, max_help_position=30)

        super().__init__(**{"formatter_class": formatter, **options})

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # pyright: ignore[reportIncompatibleMethodOverride] - the stubs have overloads
        """Parse, and exit with the usage of this parser if something is left over."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self._refuse(rest)
        return known, rest

    def _refuse(self, rest: list[str]) -> NoReturn:
        unknown = [word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"]
        if not unknown:
            self.error(f"unexpected argument: {' '.join(rest)}")
        similar = _similar(unknown[0].lstrip("-"), set(re.findall(r"--([\w-]+)", self.format_usage())))
        if similar:
            hint = f"did you mean {' or '.join(f'--{name}' for name in similar)}?"
        else:
            hint = f"see '{self.prog} --help' for all options"
        self.error(f"there is no option {unknown[0]}; {hint}")


def _similar(typed: str, names: set[str]) -> list[str]:
    """Up to three of the names, the most similar first."""
    similarity = {name: SequenceMatcher(None, typed, name).ratio() for name in sorted(names)}
    minimum = max(_MIN_SIMILARITY, max(similarity.values(), default=0) - _LESS_THAN_BEST)
    return sorted((name for name in similarity if similarity[name] >= minimum), key=lambda name: -similarity[name])[:3]
