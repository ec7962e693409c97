"""The web port as a whole: the page and what programs read, on one site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distbal.access import AccessList
from distbal.activity import Activity
from distbal.complaints import Complaints
from distbal.reporter import Reporter
from distbal.web import page
from distbal.web.site import make_site


class WebPort:
    """Serves it from now on, until it is stopped. :func:`distbal.web.site.make_site` has the other parameters.

    :param activity: what was seen of the last hour.

    :ivar site: to be listened with.
    """

    def __init__(
        self,
        reporter: Reporter,
        *,
        allowed: Callable[[], AccessList],
        complain: Complaints,
        reactor: Any,
        most: int,
        activity: Activity | None = None,
    ) -> None:
        self.site = make_site(reporter, allowed=allowed, complain=complain, reactor=reactor, most=most)
        self._page = page.install(self.site.resource, self.site.answers, reporter, activity or Activity(), reactor)
        self._page.start()

    def stop(self) -> None:
        """The end: every connection is closed."""
        self._page.stop()
        self.site.close()
