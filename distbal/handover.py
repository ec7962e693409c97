"""State and sockets that outlive the process: what the next image of it takes up."""

from __future__ import annotations

from distbal.config import Settings
from distbal.errors import DistbalError
from distbal.ledger import Ledger, LedgerError
from distbal.scheduler import Scheduler


class HandoverError(DistbalError):
    """What was handed over cannot be taken up."""


def dry_run(settings: Settings, ledger: Ledger) -> None:
    """Read what an earlier image accounts for, as if it were to be taken up; nothing is opened, told or written.

    :param settings: what the file says.
    :param ledger: a copy, which nobody writes to.
    :raises HandoverError: it could not be taken up; the text says why.
    """
    Scheduler(settings.farm)
    try:
        ledger.accounts()
        ledger.read_notes()
    except LedgerError as error:
        raise HandoverError(f"the accounts of the running daemon cannot be read: {error}") from error
