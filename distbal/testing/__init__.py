"""The contracts of distbal/interfaces.py as tests, which anybody can run against a monitor of their own.

One class for a kind of monitor, which says how to make a host that answers::

    from distbal.testing import MonitorContract, Target


    class TestMine(MonitorContract):
        factory = MyKind()
        options = {"user": "me"}

        @contextmanager
        def host(self):
            with a_server_that_i_started() as port:
                yield Target("alpha:3632", "127.0.0.1", port)

Its tests return Deferreds, so what runs them has to know these: pytest with pytest-twisted (``pip install pytest-twisted``), or
``twisted.trial.unittest.TestCase`` as a second base class and ``trial``. Neither is imported here.

:func:`surroundings` makes what monitors are made with, for tests of one's own.
"""

from __future__ import annotations

from distbal.interfaces import Target
from distbal.monitors.readings import validate_reading
from distbal.testing.contract import MonitorContract
from distbal.testing.scenes import surroundings

__all__ = ["MonitorContract", "Target", "surroundings", "validate_reading"]
