"""``python -m distbal.keeper``: the keeper as it starts itself again, and the trial that comes before that."""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from distbal.keeper import command, replacing


def main(words: list[str]) -> int:
    """Supervise, or with ``--trial`` say whether the state of the keeper that runs is understood."""
    if words == ["--trial"]:
        try:
            state = replacing.state_of_before()
        except ValueError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        return 0 if state is not None else 2
    parser = ArgumentParser("distbal supervise")
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
