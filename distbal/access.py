"""Who may connect: a list of address ranges, asked once for every connection.

The words of ``allow`` in hosts.yaml become an :class:`AccessList`. An IPv4 client that reached an IPv6 socket comes as
``::ffff:10.0.0.9``; here it is 10.0.0.9: ranges need not be written twice, and nobody gets in by the other spelling. So
``::/0`` is everyone who really comes by IPv6, and nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

#: what the words of ``allow`` stand for, beside ``any``. Private is what no router of the internet forwards: RFC 1918, IPv4's
#: and IPv6's link-local, unique local IPv6. RFC 6598's 100.64.0.0/10 is not in it: a provider's other customers live there.
WORDS: dict[str, tuple[str, ...]] = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"),
}
ANY = "any"

#: answers kept, by address text; builds come from tens or hundreds of machines
_KEPT = 4096
_MAPPED = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class AccessList:
    """Some addresses, as a user names them; equal to another when the words are.

    :ivar words: as they were given: ``loopback``, ``private``, ``any``, addresses and CIDR ranges.
    """

    words: tuple[str, ...]
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(compare=False, repr=False)
    _answers: dict[str, bool] = field(compare=False, repr=False, default_factory=dict)

    @classmethod
    def parse(cls, words: Iterable[str]) -> AccessList:
        """The list that these words make; no words: nobody.

        :raises ValueError: a word is none of those above; the text says what would be right.
        """
        words = tuple(word.strip() for word in words)
        return cls(words, tuple(network for word in words for network in _networks(word)))

    def allows(self, address: str) -> bool:
        """Whether a client from there may connect.

        :param address: as accept() gives it: IPv4, IPv6 with or without ``%scope``, IPv4 mapped into IPv6; "" for a unix
            socket, which the file's mode guards and this list does not.
        """
        answer = self._answers.get(address)
        if answer is None:
            if len(self._answers) >= _KEPT:
                self._answers.clear()
            answer = self._answers[address] = self._decide(address)
        return answer

    def _decide(self, address: str) -> bool:
        if not address or ANY in self.words:
            return True
        try:
            parsed = _unmapped(ip_address(address.partition("%")[0]))
        except ValueError:
            return False  # what is no address is in no range
        return any(parsed in network for network in self._networks)

    def __str__(self) -> str:
        return ", ".join(self.words) or "nobody"


def plain(address: str) -> str:
    """The address as it is shown: IPv4 mapped into IPv6 as IPv4, everything else as it is."""
    if not address.startswith(("::ffff:", "::FFFF:")):
        return address
    if "." in address:
        # as the system writes it, and on the hot path: what follows is the IPv4 address
        return address[7:]
    try:
        return str(_unmapped(ip_address(address)))
    except ValueError:
        return address


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return getattr(address, "ipv4_mapped", None) or address


def _networks(word: str) -> list[IPv4Network | IPv6Network]:
    if word in WORDS:
        return [ip_network(text) for text in WORDS[word]]
    if word == ANY:
        return []
    if word.lower() in (*WORDS, ANY):
        raise ValueError(f'"{word}" is written "{word.lower()}"')
    address, slash, prefix = word.partition("/")
    if "%" in word:
        raise ValueError(f'"{word}" names an interface: ranges do not, write "{address.partition("%")[0]}{slash}{prefix}"')
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if bare != address:
        raise ValueError(f'"{word}" has brackets, which belong before a port: write "{bare}{slash}{prefix}"')
    try:
        parsed = ip_address(address)
    except ValueError:
        raise ValueError(
            f'"{word}" is neither an address (10.0.0.7, fd00::7), nor a range (10.0.0.0/8), nor one of: '
            f"{', '.join((*WORDS, ANY))}; names of machines are not looked up here"
        ) from None
    bits = parsed.max_prefixlen
    if slash and not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 9 and int(prefix) <= bits):
        raise ValueError(f'"{word}" should end in a number of bits from 0 to {bits}, as in "{address}/{bits}"')
    network = ip_network((parsed, int(prefix) if slash else bits), strict=False)
    if network.network_address != parsed:
        raise ValueError(
            f'"{word}" has bits set beyond the first {prefix}: write "{network}" for the range, or "{address}" alone'
        )
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        unmapped = _unmapped(network.network_address)
        return [ip_network((unmapped, network.prefixlen - _MAPPED.prefixlen))]
    return [network]
