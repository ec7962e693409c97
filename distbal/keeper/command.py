"""``distbal supervise``: the daemon, and the keeper that outlives it."""

from __future__ import annotations

import math
import os
from argparse import SUPPRESS, ArgumentTypeError
from typing import TYPE_CHECKING

from distbal.keeper import replacing
from distbal.keeper.child import interpreter
from distbal.keeper.holding import raise_limit
from distbal.keeper.loop import Settings, Supervision
from distbal.keeper.saying import Voice
from distbal.keeper.systemd import Systemd
from distbal.places import HOSTS_FILE

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """What may stand behind ``distbal supervise``."""
    parser.add_argument("-c", "--config", default=HOSTS_FILE, metavar="FILE", help=f"hosts.yaml; {HOSTS_FILE} where not given")
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="kill a daemon that gives no sign of life for so long (30)",
    )
    parser.add_argument("--verbose", action="store_true", help="say more than what went wrong")
    parser.add_argument("twistd", nargs="*", metavar="-- OPTION", help="further options of twistd, as --logfile=FILE")
    # what is run as the daemon, for tests
    parser.add_argument("--daemon", default="distbal.daemon", metavar="MODULE", help=SUPPRESS)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:
        raise ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def run(args: Namespace) -> int:
    """Supervise until somebody asks for the end, or the first daemon does not start.

    :returns: the exit status: 0, or that of a daemon that did not come to serve.
    """
    _open_standard()
    before = replacing.state_of_before()
    voice, systemd = Voice(args.verbose), Systemd(os.environ)
    arguments = ["-c", args.config, f"--patience={args.patience!r}", f"--daemon={args.daemon}"]
    arguments += ["--verbose"] if args.verbose else []
    arguments += ["--", *args.twistd] if args.twistd else []
    command = [*interpreter(args.daemon), "-n", "--pidfile=", *args.twistd, "distbal", "-c", args.config]
    supervision = Supervision(Settings(command, args.patience, arguments), voice, systemd, raise_limit())
    if before is None:
        supervision.take_up()
    else:
        supervision.resume(before)
    return supervision.run()


def _open_standard() -> None:
    """What this process was started without is closed to the daemon too, and not a socket of somebody's by chance."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
