"""What speaks at each kind of listener but balance and proxy, made when one is first listened on.

The page and the manhole bring large libraries along, and are not loaded where nobody listens for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from distbal import manhole
from distbal.activity import Activity
from distbal.admin import Admin
from distbal.adminport import AdminFactory
from distbal.briefports import StatusFactory, UpdateFactory
from distbal.complaints import Complaints
from distbal.config import Settings
from distbal.errors import DistbalError, ListenError
from distbal.leases import LocalLeases
from distbal.logs import Logger
from distbal.model import ManholeModel
from distbal.ports import Terms
from distbal.reporter import Reporter
from distbal.spells import Spells

if TYPE_CHECKING:
    from distbal.manhole.factory import ManholeFactory
    from distbal.web.port import WebPort


class Frontends:
    """All of them.

    :param spells: in which what takes long is computed.
    :param settings: what the file says, now.
    :param crowd: how many clients each of the brief ports and the page may have at once.
    :param activity: the last hour, which the page looks at.
    :param alive: what the shell of the manhole has beside what it always has, by name.

    :ivar makers: by the kind of listener, what makes its factory.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        leases: LocalLeases,
        terms: Terms,
        complain: Complaints,
        reporter: Reporter,
        admin: Admin,
        spells: Spells,
        settings: Callable[[], Settings],
        crowd: int,
        alive: Mapping[str, object],
        activity: Activity,
    ) -> None:
        self._reactor = reactor
        self._complain = complain
        self._reporter = reporter
        self._admin = admin
        self._settings = settings
        self._crowd = crowd
        self._activity = activity
        self._alive = {
            "admin": admin,
            "leases": leases,
            "reactor": reactor,
            "reporter": reporter,
            "scheduler": leases.scheduler,
            **alive,
        }
        self.status = StatusFactory("status", leases, terms, complain, reactor)
        self.update = UpdateFactory("update", leases, terms, complain, reactor)
        self.status.most = self.update.most = crowd
        self._callers = AdminFactory(admin, complain, reactor, spells)
        self._web: WebPort | None = None
        self._manhole: ManholeFactory | None = None
        self._keys: ManholeModel | None = None
        self.makers: dict[str, Callable[[], Any]] = {
            "status": lambda: self.status,
            "update": lambda: self.update,
            "web": self._open_web,
            "admin": lambda: self._callers,
            "manhole": self._open_manhole,
        }

    def name_ports(self, balance: int, status: int) -> None:
        """The text of 5657 names these; 0 for none."""
        self.status.balance_port, self.status.status_port = balance, status

    def configure(self) -> list[str]:
        """Go by what the file says now; what of it could not be done."""
        keys = self._settings().manhole
        if self._manhole is not None and keys != self._keys:
            self._keys = keys
            try:
                self._manhole.configure(keys)
            except DistbalError as error:
                self.log.error("the manhole keeps the keys that it had: {why}", why=str(error))
                return [f"the manhole keeps the keys that it had: {error}"]
        return []

    @property
    def conversations(self) -> int:
        """Clients of 5657 and 5658 that are served now: each is done in a moment."""
        return self.status.crowd + self.update.crowd

    def take_leave(self) -> list[Deferred[Any]]:
        """See those off who talk to us by the admin socket and over SSH: other code comes. They have gone when these fire."""
        leaving: list[Deferred[Any]] = [self._callers.take_leave()]
        if self._manhole is not None:
            leaving.append(self._manhole.see_off(b"the balancer is upgraded: come again"))
        return leaving

    def stay(self) -> None:
        """No other code came: whoever comes may stay."""
        self._callers.stay()

    def stop(self) -> list[Deferred[Any]]:
        """The end: everybody is let go, and has gone when these fire."""
        self._callers.hang_up()
        if self._web is not None:
            self._web.stop()
        return [] if self._manhole is None else [self._manhole.close()]

    def _open_web(self) -> Any:
        if self._web is None:
            from distbal.web.port import WebPort

            self._web = WebPort(
                self._reporter,
                allowed=lambda: self._settings().allow["web"],
                complain=self._complain,
                reactor=self._reactor,
                most=self._crowd,
                activity=self._activity,
            )
        return self._web.site

    def _open_manhole(self) -> Any:
        if self._manhole is None:
            if why := manhole.why_unavailable():
                raise ListenError(f"listen.manhole: {why}")
            from distbal.manhole.factory import make_factory

            self._keys = self._settings().manhole
            self._manhole = make_factory(self._admin, self._keys, self._reactor, self._alive)
        return self._manhole
