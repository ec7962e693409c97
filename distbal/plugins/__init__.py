"""Where kinds of monitors are found (twisted.plugin): ours in ``builtin.py``, and those of others.

A directory ``distbal/plugins`` anywhere on Python's path counts, as long as neither it nor ``distbal`` above it has an
``__init__.py`` of its own: so another package brings a kind without touching this one.
"""

from __future__ import annotations

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))  # type: ignore[no-untyped-call]
__all__: list[str] = []
