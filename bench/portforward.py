"""Twisted's portforward, as short as it can be: ``python -m bench.portforward PORT TARGET``, both of them on loopback.

With TCP_NODELAY on both sides, which it does not come with: without, each small message waits for 40 ms, and figures would be
of that. And with a longer backlog than Twisted's 50, for the clients that come at once.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.protocols import portforward


class Client(portforward.ProxyClient):
    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        super().connectionMade()


class ClientFactory(portforward.ProxyClientFactory):
    protocol = Client


class Server(portforward.ProxyServer):
    clientProtocolFactory = ClientFactory

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[attr-defined]
        super().connectionMade()


class Factory(portforward.ProxyFactory):
    protocol = Server
    noisy = False


def main() -> None:
    port, target = map(int, sys.argv[1:])
    factory = Factory("127.0.0.1", target)
    reactor.listenTCP(port, factory, backlog=4096, interface="127.0.0.1")  # type: ignore[arg-type]
    reactor.run()


if __name__ == "__main__":
    main()
