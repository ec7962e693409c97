"""``python -m distbal.trial``: whether the code that is on the disk now could go on where the running daemon is.

The daemon starts it before an upgrade in place, so that what would end the new code at its start is told by somebody who may
end: a module that cannot be imported, a file that has become a mistake, an account that cannot be understood. It loads all that
the service will need, reads hosts.yaml, takes the accounts up without a socket, and answers with one line of JSON on its
standard output: ``{"yes": true, "version": "0.6.0"}``, or ``{"yes": false, "why": ["a sentence"]}``. Nothing is listened on,
locked or written.

Its arguments: the path of hosts.yaml, the numbers of the descriptors of a copy of the ledger's two files, and the words behind
``twistd`` by which the new code would be started.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from distbal import __version__, execing
from distbal.errors import DistbalError

#: what speaks at a listener and is loaded when it is first listened on
_LISTENERS = {"web": ("distbal.web.port",), "manhole": ("distbal.manhole.factory", "distbal.manhole.shell")}
#: frames of our own that an unexpected error is told with
_FRAMES = 3


def main(arguments: Sequence[str]) -> int:
    """Try, and answer; the exit status is 0 for yes."""
    # what somebody prints who is imported is no answer
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    path, slots, notes, *words = arguments
    why = why_not(path, int(slots), int(notes), words)
    with answer:
        answer.write(json.dumps({"yes": False, "why": why} if why else {"yes": True, "version": __version__}) + "\n")
    return 1 if why else 0


def why_not(path: str, slots: int, notes: int, words: Sequence[str]) -> list[str]:
    """Why the code that is loaded here could not go on; nothing where it could."""
    try:
        _try(path, slots, notes, words)
    except DistbalError as error:
        return str(error).splitlines()
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001 (whatever somebody's code raises when it is loaded, SystemExit too)
        traceback.print_exc()
        return [_told(error)]
    return []


def _try(path: str, slots: int, notes: int, words: Sequence[str]) -> None:
    # in here, so that a mistake in any of them is answered and not died of
    from distbal import config, handover
    from distbal.ledger import Ledger

    service = import_module("distbal.service")
    _read_words(words)
    loaded = config.load(path)
    settings = loaded.settings
    kinds = {spec.kind for spec in settings.listen}
    for kind in kinds & _LISTENERS.keys():
        if kind == "manhole":
            from distbal import manhole

            if why := manhole.why_unavailable():
                raise DistbalError(f"listen.manhole: {why}")
        for module in _LISTENERS[kind]:
            import_module(module)
    handover.dry_run(settings, Ledger(slots, notes))
    service.composed(path, loaded)


def _read_words(words: Sequence[str]) -> None:
    """Whether twistd, as it is now, finds distbal and understands these."""
    if not words:
        return
    from twisted.python.usage import UsageError

    options, rest, _ = execing.twistd_options(words)
    _open_what_twistd_opens(dict(options))
    if rest[:1] != ["distbal"]:
        # a file of somebody's own (-y), which says what it wants
        return
    try:
        import_module("twisted.plugins.distbal_plugin").distbal.options().parseOptions(rest[1:])
    except ModuleNotFoundError as error:
        raise DistbalError(f"twistd would not find distbal any more: {error}") from error
    except UsageError as error:
        raise DistbalError(f"the options that distbal was started with mean nothing to it any more: {error}") from error


def _open_what_twistd_opens(options: Mapping[str, str | None]) -> None:
    """Whether we may: root may have, at the first start, before it became another user (--uid)."""
    log, directory = options.get("logfile"), options.get("rundir")
    if log is None and not {"nodaemon", "syslog", "logger"} & options.keys():
        log = execing.DETACHED_LOG
    if log and log != "-":
        path = Path(log)
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=True) and (
            path.exists() or not os.access(path.absolute().parent, os.W_OK | os.X_OK, effective_ids=True)
        ):
            raise DistbalError(f"the log could not be written any more: {path.absolute()} is not ours to open (chown it)")
    if directory and not os.access(directory, os.X_OK, effective_ids=True):
        raise DistbalError(f"twistd could not go to its --rundir any more: {directory} is not ours to enter")


def _told(error: BaseException) -> str:
    """An error that is a bug, or a broken installation, in a line: what and where."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f"{what} ({', in '.join(reversed(frames[-_FRAMES:]))})" if frames else what


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
