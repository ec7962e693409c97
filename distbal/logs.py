"""How much is logged: a level that can be changed while the daemon runs, for its own log alone.

twistd decides where lines go, and Twisted's own are none of our business. Below the level an event is not even made.
"""

from __future__ import annotations

from typing import cast

from constantly import NamedConstant  # type: ignore[import-untyped]
from twisted.logger import Logger as TwistedLogger
from twisted.logger import LogLevel

#: by the names that people use
LEVELS: dict[str, NamedConstant] = {"debug": LogLevel.debug, "info": LogLevel.info, "warn": LogLevel.warn}


class Threshold:
    """The level, one for the whole process.

    :ivar name: a key of :data:`LEVELS`.
    """

    def __init__(self) -> None:
        self.set("info")

    def set(self, name: str) -> None:
        """From now on, this level and what is graver; KeyError where there is none of that name."""
        self.level = LEVELS[name]
        self.name = name


threshold = Threshold()


class Logger(TwistedLogger):
    """As Twisted's, but for the threshold."""

    def __get__(self, instance: object, owner: type | None = None) -> Logger:
        return cast("Logger", super().__get__(instance, owner))

    def emit(self, level: NamedConstant, format: str | None = None, **fields: object) -> None:  # noqa: A002 (Twisted's name)
        if level >= threshold.level:
            super().emit(level, format, **fields)
