"""Files that are wrong, each with every mistake that it makes: the full text and the line of each.

``distbal check`` reports all of these, and the JSON Schema rejects every one that its rules can reach. One that names a reason
in ``beyond_schema`` passes the schema, and a test holds it to that, so that no mark outlives its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

#: what a file may hold, and what its ``listen``
KEYS = "hosts, policy, queue, reply, listen, allow, manhole, state, monitors"
LISTEN = "balance, status, update, proxy, web, admin, manhole"
JOINS_HOSTS = "joins two hosts: JSON Schema compares no parts of texts"
JOINS_LISTENERS = "joins two listeners: JSON Schema does not know which texts are one address"
JOINS_POOLS = "joins a listener and the hosts: JSON Schema compares no values in different places"
YAMLS_OWN = "is YAML's own: JSON Schema sees the values, not how they were written"
IPV6_PREFIXES = "a pattern would have to know each of 128 prefixes in each spelling of an address"


#: the line behind ``hosts: [box/4]``, and what is said of it
LINES: dict[str, str] = {
    "pollicy: random": "pollicy: unknown key; did you mean policy?",
    "colour: blue": f"colour: unknown key; the keys here are {KEYS}",
    "<<: {policy: random}": f'["<<"]: unknown key; the keys here are {KEYS}',
    "policy: fastest_first": (
        'policy: "fastest_first" is none of fastest-first, least-loaded, random; did you mean fastest-first?'
    ),
    "policy: quick": 'policy: "quick" is none of fastest-first, least-loaded, random',
    "policy: [random]": "policy: a list is none of fastest-first, least-loaded, random",
    "queue: {order: FIFO}": 'queue.order: "FIFO" is none of fair, fifo; did you mean fifo?',
    "queue: {wait: -1}": ("queue.wait: -1 is no time: seconds, a number above 0 and at most 31536000, or null for ever"),
    "queue: {wait: 0}": ("queue.wait: 0 is no time: seconds, a number above 0 and at most 31536000, or null for ever"),
    "queue: {wait: 5s}": ('queue.wait: "5s" is no time: seconds, a number above 0 and at most 31536000, or null for ever'),
    "queue: {wait: .inf}": ('queue.wait: ".inf" is no time: seconds, a number above 0 and at most 31536000, or null for ever'),
    "queue: {wait: 1e400}": (
        'queue.wait: "1e400" is no time: seconds, a number above 0 and at most 31536000, or null for ever'
    ),
    "queue: {wait: true}": ("queue.wait: true is no time: seconds, a number above 0 and at most 31536000, or null for ever"),
    "queue: {ordr: fair}": "queue.ordr: unknown key; did you mean order?",
    "queue:": "queue: nothing where a mapping is wanted, with any of the keys order, wait",
    "queue: fifo": 'queue: "fifo" where a mapping is wanted, with any of the keys order, wait',
    "reply: '{host}/100{options}'": 'reply: "{host}" means nothing in a reply: only {name} and {options} do',
    "reply: '{name}/100{option}'": 'reply: "{option}" means nothing in a reply: only {name} and {options} do',
    "reply: box/100": "reply: a reply without {name} does not tell clients which host they are given",
    "reply: ''": "reply: a reply without {name} does not tell clients which host they are given",
    "reply:": "reply: nothing is no text: {name}, then /SLOTS or nothing, then {options} or nothing",
    "reply: '{options}{name}'": (
        'reply: "{options}{name}" would not be a host to distcc: {name}, then /SLOTS or nothing, then {options} or nothing'
    ),
    "reply: '{name}{options}/100'": (
        'reply: "{name}{options}/100" would not be a host to distcc: {name}, then /SLOTS or nothing, then {options} or nothing'
    ),
    'reply: "{name}\\n"': (
        'reply: "{name}\\n" would not be a host to distcc: {name}, then /SLOTS or nothing, then {options} or nothing'
    ),
    "reply: {name}": "reply: a mapping is no text: {name}, then /SLOTS or nothing, then {options} or nothing",
    "listen: {balance: 70000}": "listen.balance: a port is 0 to 65535 (0: any that is free), not 70000",
    "listen: {balance: -1}": "listen.balance: a port is 0 to 65535 (0: any that is free), not -1",
    "listen: {balance: 127.0.0.1:70000}": 'listen.balance: a port is 0 to 65535, not "70000"',
    "listen: {balance: 5656.5}": ("listen.balance: write a PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint; null is off"),
    "listen: {balance: off}": "listen.balance: null is off",
    "listen: {balance: false}": "listen.balance: null is off",
    "listen: {balance: true}": ("listen.balance: write a PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint; null is off"),
    "listen: {balance: ''}": "listen.balance: null is off",
    "listen: {balance: []}": "listen.balance: an empty list: null is off",
    "listen: {balance: [null]}": (
        "listen.balance[0]: write a PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint; null is off"
    ),
    "listen: {balance: [[5656]]}": (
        "listen.balance[0]: write a PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint; null is off"
    ),
    "listen: {balance: '*:5656'}": "listen.balance: for every address write 5656 alone",
    "listen: {balance: ':5656'}": "listen.balance: for every address write 5656 alone",
    "listen: {balance: localhost:5656}": (
        'listen.balance: write the address itself: 127.0.0.1:5656, "[::1]:5656" or both in a list'
    ),
    "listen: {balance: build.example.org:5656}": (
        "listen.balance: build.example.org is a name: write an IP address of this machine, or 5656 alone for every address"
    ),
    "listen: {balance: box:5656}": (
        "listen.balance: box is a name: write an IP address of this machine, or 5656 alone for every address"
    ),
    "listen: {balance: 10.0.0.1}": (
        'listen.balance: "10.0.0.1" lacks a port: a PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint'
    ),
    "listen: {balance: 300.0.0.1:5656}": (
        'listen.balance: "300.0.0.1" is no IP address: an IPv4 address is four numbers of 0 to 255 with dots between'
    ),
    "listen: {balance: '::1'}": ('listen.balance: an IPv6 address stands between brackets and before a port: "[::1]:5656"'),
    "listen: {balance: '::1%eth0:5656'}": (
        'listen.balance: an IPv6 address stands between brackets, and so in quotes: "[::1%eth0]:5656"'
    ),
    "listen: {balance: '[::1:5656'}": ('listen.balance: "[::1" is no IP address: it lacks the ] that ends an IPv6 address'),
    "listen: {balance: 'fd00::g:5656'}": (
        'listen.balance: "fd00::g" is no IP address: an IPv6 address stands between brackets, as in [fd00::7]'
    ),
    "listen: {balance: 'fd00::7:5656'}": (
        'listen.balance: an IPv6 address stands between brackets and before a port: "[::1]:5656"'
    ),
    "listen: {balance: 'fd00:1:2:3:4:5:6:7'}": (
        'listen.balance: an IPv6 address stands between brackets and before a port: "[::1]:5656"'
    ),
    "policy: the-fastest-and-then-the-second-and-then-the-third-and-then-the-others": (
        'policy: "the-fastest-and-then-the-second-and-then-the-third-and-th..." is none of fastest-first, least-loaded, random'
    ),
    "listen: {balance: '[::g]:5656'}": 'listen.balance: "[::g]" is no IP address: "::g" is no IPv6 address',
    "listen: {balance: 'unix:run/x'}": "listen.balance: unix:/PATH has an absolute path of at most 107 characters",
    "listen: {balance: 'unix:/" + "x" * 107 + "'}": (
        "listen.balance: unix:/PATH has an absolute path of at most 107 characters"
    ),
    "listen: {balance: 'tcp:99999'}": "listen.balance: tcp:PORT has a port of 0 to 65535",
    "listen: {balance: 'systemd:'}": "listen.balance: something stands after systemd:",
    "listen: {balance: 'systemd:domain=INET: index=0'}": (
        "listen.balance: a PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint has no spaces and no control "
        "characters, and at most 400 characters"
    ),
    "listen: {balance: {pool: default}}": "listen.balance: at is missing: it says where to listen",
    "listen: {status: {at: 5657, pool: default}}": "listen.status.pool: only listen.balance and listen.proxy have pools",
    "listen: {balance: {at: 5656, pool: a/b}}": (
        "listen.balance.pool: \"a/b\" is no name of a pool: letters, digits, '-', '_' and dots, at most 64"
    ),
    "listen: {pool: arm}": "listen.pool: only listen.balance and listen.proxy have pools",
    "listen: {balance: {at: 5656, speaks_first: server}}": (
        "listen.balance.speaks_first: speaks_first is the proxy's: only listen.proxy has it"
    ),
    "listen: {status: [5657, {at: 7000, half_close: pass}]}": (
        "listen.status[1].half_close: half_close is the proxy's: only listen.proxy has it"
    ),
    "listen: {speaks_first: server}": "listen.speaks_first: speaks_first is the proxy's: only listen.proxy has it",
    "listen: {proxy: 70000}": "listen.proxy: a port is 0 to 65535 (0: any that is free), not 70000",
    "listen: {proxy: off}": "listen.proxy: null is off",
    "listen: {proxy: []}": "listen.proxy: an empty list: null is off",
    "listen: {proxy: [3640, 3640]}": "listen.proxy: 3640 stands twice",
    "listen: {proxy: balancer:3640}": (
        "listen.proxy: balancer is a name: write an IP address of this machine, or 3640 alone for every address"
    ),
    "listen: {proxy: {pool: default}}": "listen.proxy: at is missing: it says where to listen",
    "listen: {proxy: {at: 3640, pool: a/b}}": (
        "listen.proxy.pool: \"a/b\" is no name of a pool: letters, digits, '-', '_' and dots, at most 64"
    ),
    "listen: {proxy: {at: 3640, speaks_first: Server}}": (
        'listen.proxy.speaks_first: "Server" is none of client, server; did you mean server?'
    ),
    "listen: {proxy: {at: 3640, speaks_first: both}}": 'listen.proxy.speaks_first: "both" is none of client, server',
    "listen: {proxy: {at: 3640, speaks_first:}}": "listen.proxy.speaks_first: nothing is none of client, server",
    "listen: {proxy: [{at: 3640, half_close: true}]}": "listen.proxy[0].half_close: true is none of cancel, pass",
    "listen: {proxy: {at: 3640, half_close: forward}}": 'listen.proxy.half_close: "forward" is none of cancel, pass',
    "listen: {proxy: {at: 3640, half-close: pass}}": "listen.proxy.half-close: unknown key; did you mean half_close?",
    "listen: {proxy: {at: 3640, to: box}}": (
        "listen.proxy.to: unknown key; the keys here are at, pool, speaks_first, half_close"
    ),
    "listen: {proxi: 3640}": "listen.proxi: unknown key; did you mean proxy?",
    "listen: {http: 5659}": f"listen.http: unknown key; the keys here are {LISTEN}",
    "state: 5": "state: 5 is no directory: an absolute path, or null for nowhere",
    "state: var/lib": 'state: "var/lib" is no absolute path: it begins with /, and has no control characters',
    "state: true": "state: true is no directory: an absolute path, or null for nowhere",
    "listen: {admin: 5661}": (
        "listen.admin: 5661: whoever can connect there can do everything, so it is a file with a mode: unix:/PATH"
    ),
    "listen: {admin: 127.0.0.1:5661}": (
        'listen.admin: "127.0.0.1:5661": whoever can connect there can do everything, so it is a file with a mode: unix:/PATH'
    ),
    "listen: {admin: admin.sock}": (
        'listen.admin: "admin.sock" lacks a port: a PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint'
    ),
    "listen: {manhole: {at: 5660, pool: arm}}": "listen.manhole.pool: only listen.balance and listen.proxy have pools",
    "manhole: {keys: /etc/keys}": "manhole.keys: unknown key; the keys here are authorized_keys, host_key",
    "manhole: {host_key: 5}": 'manhole.host_key: 5 is no text; in quotes, "5", it is one: an absolute path',
    "manhole: {authorized_keys: ~/.ssh/authorized_keys}": (
        'manhole.authorized_keys: "~/.ssh/authorized_keys" is no absolute path: it begins with /, and has no control characters'
    ),
    "listen: 5656": f"listen: 5656 where a mapping is wanted, with any of the keys {LISTEN}",
    "listen:": f"listen: nothing where a mapping is wanted, with any of the keys {LISTEN}",
    "listen: {balance: [5656, 5656]}": "listen.balance: 5656 stands twice",
    'allow: {clients: "\\x1f"}': (
        "allow.clients: a list is wanted: loopback, private, any, addresses or ranges such as 10.0.0.0/8; "
        "null in listen is how to switch a port off"
    ),
    "allow: {clients: any}": "allow.clients: a list is wanted, even of one: [any]",
    "allow: {clients: []}": (
        "allow.clients: the list is empty: loopback, private, any, addresses or ranges such as 10.0.0.0/8; null in "
        "listen is how to switch a port off"
    ),
    "allow: {clients: }": (
        "allow.clients: nothing where a list is wanted: loopback, private, any, addresses or ranges such as "
        "10.0.0.0/8; null in listen is how to switch a port off"
    ),
    "allow: {clients: [10.0.0.0/33]}": (
        'allow.clients[0]: "10.0.0.0/33" should end in a number of bits from 0 to 32, as in "10.0.0.0/32"'
    ),
    "allow: {clients: [192.168.1.5/24]}": (
        'allow.clients[0]: "192.168.1.5/24" has bits set beyond the first 24: write "192.168.1.0/24" for the range, '
        'or "192.168.1.5" alone'
    ),
    "allow: {clients: [10.0.0.0/08]}": 'allow.clients[0]: "10.0.0.0/08": numbers have no zeros in front',
    "allow: {clients: [loopback, build.example.org]}": (
        'allow.clients[1]: "build.example.org" is neither an address (10.0.0.7, fd00::7), nor a range (10.0.0.0/8), '
        "nor one of: loopback, private, any; names of machines are not looked up here"
    ),
    "allow: {clients: [Any]}": 'allow.clients[0]: "Any" is written "any"',
    "allow: {clients: [' any']}": ('allow.clients[0]: " any" is no address or range; those are one word without spaces'),
    "allow: {clients: [10]}": (
        'allow.clients[0]: 10 is no text; in quotes, "10", it is one: loopback, private, any, addresses or ranges '
        "such as 10.0.0.0/8"
    ),
    "allow: {updates: [any]}": "allow.updates: unknown key; did you mean update?",
    "allow: [any]": "allow: a list where a mapping is wanted, with any of the keys clients, update, web",
}


@dataclass(frozen=True)
class Invalid:
    """A whole file.

    :ivar text: what stands in it.
    :ivar mistakes: what is reported, each as it stands behind the file's name.
    :ivar beyond_schema: why JSON Schema cannot reject it; "" where it does.
    """

    text: str
    mistakes: tuple[str, ...]
    beyond_schema: str = ""


#: files that can be read, by what is wrong with them
FILES: dict[str, Invalid] = {
    "no hosts key": Invalid(
        "policy: random\n", (": hosts is missing: list one distcc server at least, such as - 127.0.0.1:3632/4",)
    ),
    "hosts mistyped": Invalid("hsts: [box/4]\n", (":1: hsts: unknown key; did you mean hosts?",)),
    "hosts without a value": Invalid(
        "hosts:\n", (":1: hosts: nothing where a list of hosts is wanted: write each behind a '- '",)
    ),
    "an empty list of hosts": Invalid("hosts: []\n", (":1: hosts: no hosts: name one at least, such as - 127.0.0.1:3632/4",)),
    "hosts as one text": Invalid(
        "hosts: box1/4 box2/4\n", (":1: hosts: \"box1/4 box2/4\" where a list of hosts is wanted: write each behind a '- '",)
    ),
    "hosts as a number": Invalid("hosts: 5\n", (":1: hosts: 5 where a list of hosts is wanted: write each behind a '- '",)),
    "hosts as a mapping": Invalid(
        "hosts:\n  box1: 4\n  box2: 8\n",
        (":2: hosts: a mapping where a list is wanted: write each host behind a '- ', as in - box1",),
    ),
    "hosts as a mapping by a colon too many": Invalid(
        "hosts:\n  box1:3632/4:\n",
        (":2: hosts: a mapping where a list is wanted: write each host behind a '- ', as in - box1:3632/4",),
    ),
    "an empty rank": Invalid(
        "hosts:\n  - box/4\n  - []\n", (":3: hosts[1]: an empty rank: put hosts into it, or leave it out",)
    ),
    "nothing behind the dash": Invalid(
        "hosts:\n  - box/4\n  -\n",
        (
            (
                ":3: hosts[1]: nothing stands here: a host is NAME[/SLOTS][,OPTIONS], NAME being HOST[:PORT], or a mapping "
                "with a name"
            ),
        ),
    ),
    "a key that is a host, with values": Invalid(
        "hosts:\n  - box1:\n      slots: 4\n", (':2: hosts[0]: "box1:" makes a mapping: write box1 alone, or - name: box1',)
    ),
    "a comma in a list between brackets": Invalid(
        "hosts: [box/4,lzo]\n",
        ((':1: hosts[1]: "lzo" is an option, not a host: between [ and ] a comma ends a text, so put the whole in quotes'),),
    ),
    "one name, other slots": Invalid(
        "hosts:\n  - box/4\n  - other/4\n  - box/8\n",
        (":4: hosts[2]: box stands twice, first on line 2: keep one, with all of its slots",),
        JOINS_HOSTS,
    ),
    "one name, in a rank": Invalid(
        "hosts:\n  - box/4\n  - [other/4, {name: box, slots: 4}]\n",
        (":3: hosts[1][1]: box stands twice, first on line 2: keep one, with all of its slots",),
        JOINS_HOSTS,
    ),
    "one text twice": Invalid(
        "hosts:\n  - box/4\n  - other/4\n  - box/4\n",
        (":4: hosts[2]: box stands twice, first on line 2: keep one, with all of its slots",),
    ),
    "slots and options in a name": Invalid(
        "hosts:\n  - name: box:3632/4,lzo\n    slots: 4\n",
        (":2: hosts[0].name: the name is box:3632 alone; write slots: 4 and options: lzo beside it",),
    ),
    "an order that is not known": Invalid(
        "hosts: [box/4]\nqueue:\n  order: lifo\n", (':3: queue.order: "lifo" is none of fair, fifo; did you mean fifo?',)
    ),
    "one listener twice, written differently": Invalid(
        "hosts: [box/4]\nlisten: {balance: [5656, '5656']}\n",
        (":2: listen.balance[1]: 5656 is taken: balance (5656) listens there",),
        JOINS_LISTENERS,
    ),
    "another's default port": Invalid(
        "hosts: [box/4]\nlisten: {balance: 5657}\n",
        (":2: listen.balance: 5657 is taken: status (5657, the default) listens there",),
        JOINS_LISTENERS,
    ),
    "another's default port, the other way round": Invalid(
        "hosts: [box/4]\nlisten:\n  status: 5656\n",
        (":3: listen.status: 5656 is taken: balance (5656, the default) listens there",),
        JOINS_LISTENERS,
    ),
    "an address of a port that is taken whole": Invalid(
        "hosts: [box/4]\nlisten:\n  balance: 7000\n  status: 127.0.0.1:7000\n",
        (":4: listen.status: 127.0.0.1:7000 is taken: balance (7000) listens there",),
        JOINS_LISTENERS,
    ),
    "an address among all of its family": Invalid(
        "hosts: [box/4]\nlisten:\n  balance: 0.0.0.0:7000\n  status: 127.0.0.1:7000\n",
        (":4: listen.status: 127.0.0.1:7000 is taken: balance (0.0.0.0:7000) listens there",),
        JOINS_LISTENERS,
    ),
    "one IPv6 address, written differently": Invalid(
        "hosts: [box/4]\nlisten:\n  balance: '[::1]:7000'\n  status: '[0:0::1]:7000'\n",
        (":4: listen.status: [0:0::1]:7000 is taken: balance ([::1]:7000) listens there",),
        JOINS_LISTENERS,
    ),
    "one path twice": Invalid(
        "hosts: [box/4]\nlisten:\n  balance: unix:/run/x\n  status: unix:/run/x\n",
        (":4: listen.status: unix:/run/x is taken: balance (unix:/run/x) listens there",),
        JOINS_LISTENERS,
    ),
    "a proxy on the port of balance": Invalid(
        "hosts: [box/4]\nlisten:\n  proxy: 5656\n",
        (":3: listen.proxy: 5656 is taken: balance (5656, the default) listens there",),
        JOINS_LISTENERS,
    ),
    "a proxy on an address of a port that update has": Invalid(
        "hosts: [box/4]\nlisten:\n  proxy: [3640, {at: 5658, speaks_first: server}]\n",
        (":3: listen.proxy[1]: 5658 is taken: update (127.0.0.1:5658, the default) listens there",),
        JOINS_LISTENERS,
    ),
    "two proxies on one port, for two pools": Invalid(
        "hosts: [{name: box, slots: 4, pools: [default, arm]}]\nlisten:\n  proxy: [3640, {at: 127.0.0.1:3640, pool: arm}]\n",
        (":3: listen.proxy[1]: 127.0.0.1:3640 is taken: proxy (3640) listens there",),
        JOINS_LISTENERS,
    ),
    "a pool that no host serves": Invalid(
        "hosts: [box/4]\nlisten:\n  balance: {at: 5656, pool: arm}\n",
        (":3: listen.balance.pool: no host serves the pool arm: the pools here are default",),
        JOINS_POOLS,
    ),
    "a pool misspelt": Invalid(
        ("hosts:\n  - {name: box, slots: 4, pools: [arm]}\nlisten:\n  balance:\n    - at: 5656\n      pool: amr\n"),
        (":6: listen.balance[0].pool: no host serves the pool amr: did you mean arm?",),
        JOINS_POOLS,
    ),
    "the default pool, which no host serves": Invalid(
        "hosts:\n  - {name: box, slots: 4, pools: [arm, x86]}\n",
        (
            (
                ": listen.balance: no host serves the pool default, which balance (5656, the default) lends: write {at: "
                "5656, pool: arm}"
            ),
        ),
        JOINS_POOLS,
    ),
    "the default pool, which no host serves, by a port alone": Invalid(
        "hosts:\n  - {name: box, slots: 4, pools: [arm]}\nlisten:\n  balance: 7000\n",
        ((":4: listen.balance: no host serves the pool default, which balance (7000) lends: write {at: 7000, pool: arm}"),),
        JOINS_POOLS,
    ),
    "the default pool, which no host serves, by an IPv6 address": Invalid(
        "hosts:\n  - {name: box, slots: 4, pools: [arm]}\nlisten:\n  balance: '[::1]:7000'\n",
        (
            (
                ":4: listen.balance: no host serves the pool default, which balance ([::1]:7000) lends: write {at: "
                '"[::1]:7000", pool: arm}'
            ),
        ),
        JOINS_POOLS,
    ),
    "a proxy's pool that no host serves": Invalid(
        "hosts: [box/4]\nlisten:\n  proxy: [3640, {at: 3641, pool: arm}]\n",
        (":3: listen.proxy[1].pool: no host serves the pool arm: the pools here are default",),
        JOINS_POOLS,
    ),
    "the default pool, which no host serves, by proxies": Invalid(
        (
            "hosts:\n  - {name: box, slots: 4, pools: [arm]}\nlisten:\n  balance: null\n"
            "  proxy:\n    - 3640\n    - {at: 3641, speaks_first: server}\n"
        ),
        (
            ":6: listen.proxy[0]: no host serves the pool default, which proxy (3640) lends: write {at: 3640, pool: arm}",
            ":7: listen.proxy[1]: no host serves the pool default, which proxy (3641) lends: add pool: arm",
        ),
        JOINS_POOLS,
    ),
    "bits beyond the prefix, IPv6": Invalid(
        "hosts: [box/4]\nallow: {clients: ['fd00::1/8']}\n",
        (
            (
                ':2: allow.clients[0]: "fd00::1/8" has bits set beyond the first 8: write "fd00::/8" for the range, or '
                '"fd00::1" alone'
            ),
        ),
        IPV6_PREFIXES,
    ),
    "a list as the file": Invalid(
        "- box/4\n",
        ((f":1: a list where a mapping is wanted, with any of the keys {KEYS}"),),
    ),
    "a text as the file": Invalid(
        "box/4\n",
        ((f':1: "box/4" where a mapping is wanted, with any of the keys {KEYS}'),),
    ),
    "a key twice": Invalid(
        "hosts: [box/4]\npolicy: random\npolicy: random\n",
        (':3: policy: "policy" stands twice, first on line 2: keep one of them',),
        YAMLS_OWN,
    ),
    "a key twice, further in": Invalid(
        "hosts: [box/4]\nqueue: {order: fair, order: fifo}\n",
        (':2: queue.order: "order" stands twice, first on line 2: keep one of them',),
        YAMLS_OWN,
    ),
    "hosts twice": Invalid(
        "hosts:\n  - box/4\nhosts:\n  - box2/4\n",
        (':3: hosts: "hosts" stands twice, first on line 1: keep one of them',),
        YAMLS_OWN,
    ),
    "a tag that would run a command": Invalid(
        "hosts: !!python/object/apply:os.system ['true/4']\n",
        (':1: hosts: the tag "!!python/object/apply:os.system" means nothing here: leave it out',),
        YAMLS_OWN,
    ),
    "a tag of YAML's own": Invalid(
        "hosts: [!!str box/4]\n", (':1: hosts[0]: the tag "!!str" means nothing here: leave it out',), YAMLS_OWN
    ),
    "a key that is a list": Invalid(
        "hosts: [box/4]\n? [policy]\n: random\n", (":2: a key is one word, not a list, a mapping or an alias",), YAMLS_OWN
    ),
    "an alias without an anchor": Invalid(
        "hosts: [box/4, *other]\n", (":1: hosts[1]: *other stands for &other, which no line above has",)
    ),
    "ends of one side by an endpoint that knows none": Invalid(
        "hosts: [box/4]\nlisten:\n  proxy:\n    at: haproxy:tcp:3640\n    half_close: pass\n",
        (":5: listen.proxy.half_close: haproxy knows no end of one side alone, so it can pass none on",),
        "it joins two values",
    ),
    "hosts that stand twice, and are wrong by themselves": Invalid(
        "hosts:\n  - box/0\n  - box/2\n  - {name: box, slots: 2, rank: 1}\n  - {name: box:3632/2}\n  - box:3632/2,zip\n",
        (
            ":2: hosts[0]: a host has at least 1 slot: leave it out of the file to send it nothing",
            ":3: hosts[1]: box stands twice, first on line 2: keep one, with all of its slots",
            ":4: hosts[2]: box stands twice, first on line 2: keep one, with all of its slots",
            ":4: hosts[2].rank: unknown key; the keys here are name, slots, address, options, pools, monitors",
            ":5: hosts[3].name: the name is box:3632 alone; write slots: 2 beside it",
            ':6: hosts[4]: "zip" is no option of distcc: the options are lzo, cpp (with lzo) and auth',
            ":6: hosts[4]: box:3632 stands twice, first on line 5: keep one, with all of its slots",
        ),
    ),
    "everything at once": Invalid(
        (
            "hosts:\n  - box/0\n  - other/4\n  - other/8\n  - {name: third, slotz: 1, address: 'x:0'}\npollicy: random\n"
            "queue: {wait: -1}\nlisten: {balance: 5657, update: {pool: x}}\nallow: {clients: [lan]}\n"
        ),
        (
            ":2: hosts[0]: a host has at least 1 slot: leave it out of the file to send it nothing",
            ":4: hosts[2]: other stands twice, first on line 3: keep one, with all of its slots",
            ":5: hosts[3].slotz: unknown key; did you mean slots?",
            ':5: hosts[3].address: "x:0": a port is 1 to 65535, not "0"',
            ":6: pollicy: unknown key; did you mean policy?",
            ":7: queue.wait: -1 is no time: seconds, a number above 0 and at most 31536000, or null for ever",
            ":8: listen.balance: 5657 is taken: status (5657, the default) listens there",
            ":8: listen.update: at is missing: it says where to listen",
            ":8: listen.update.pool: only listen.balance and listen.proxy have pools",
            (
                ':9: allow.clients[0]: "lan" is neither an address (10.0.0.7, fd00::7), nor a range (10.0.0.0/8), nor one '
                "of: loopback, private, any; names of machines are not looked up here"
            ),
        ),
    ),
}

#: files that cannot be read to their end, so that a schema has nothing to look at
UNREADABLE: dict[str, str] = {
    "": ": is empty: it needs hosts at least",
    "# hosts: [box/4]\n": ": is empty: it needs hosts at least",
    "---\n...\n": ": is empty: it needs hosts at least",
    "hosts: [box/4]\n---\nhosts: [box/4]\n": (":2: a second document begins here: the file holds one, so leave out the ---"),
    "hosts:\n\t- box/4\n": ":2: a tab stands where only spaces may: YAML indents with spaces",
    "hosts:\n  - box1:\t3632\n": ":2: a tab stands where only spaces may: YAML indents with spaces",
    "hosts:\n  - @box/4\n": (
        ":2: no text begins with '@' in YAML, and @host is a host over ssh, which distbal does not do: run distccd there"
    ),
    "hosts:\n  - `box`\n": ":2: no text begins with '`' in YAML: put the text in quotes",
    "hosts:\n  - box/4\n  - [fd00::7]:3632/8\n": (':3: [...] is a list to YAML: write "[fd00::7]:3632/8", with the quotes'),
    "hosts: [box/4]\nlisten: {balance: [::1]:5656}\n": (':2: [...] is a list to YAML: write "[::1]:5656", with the quotes'),
    "hosts: [box/4]\nreply: {name}/100{options}\n": (
        ':2: {...} is a mapping to YAML: write "{name}/100{options}", with the quotes'
    ),
    "hosts: [box/4\npolicy: random\n": ":2: a list that begins with [ on line 1 has no , or ] where one must be",
    "hosts: [box/4]\nqueue: {order: fair\n": (":3: a mapping that begins with { on line 2 has no , or } where one must be"),
    "hosts:\n  - 'box/4\n  - box2/4\n": ":4: the quote that begins on line 2 never ends",
    "hosts: 'box\n---\n": ":2: the quote that begins on line 1 never ends",
    "hosts: [box/4]]\n": ":1: a ] that closes nothing",
    "hosts: [box/4]\npolicy: ]\n": (
        ":2: a value is missing, or begins with a character that means something to YAML: put the text in quotes"
    ),
    "hosts:\n  - box/4\n policy: random\n": (
        ":3: the indentation does not fit the lines above: what belongs together begins in one column"
    ),
    "hosts: [box/4]\npolicy: random: yes\n": (
        ":2: a ': ' makes a key, and none can stand here: put the text in quotes, or mend the indentation"
    ),
    "hosts: [box/4]\npolicy: - random\n": (":2: a '- ' begins a list, and none can stand here: begin it on a line of its own"),
    "hosts: [box/4]\npolicy\n": ":2: a key has a ':' and a space behind it",
    'hosts: [box/4]\npolicy: "\\random\\q"\n': ":2: \\q means nothing between double quotes: use single quotes",
    "hosts:\n  - 'box'/4\n": (":2: the indentation does not fit the lines above: what belongs together begins in one column"),
    "{hosts: [box/4]}\npolicy: random\n": (
        ":2: what stands above is complete by itself: a ':' is missing, or the indentation is wrong"
    ),
    "hosts: [box/4]\npolicy: ? random\n": ":2: a '? ' makes a key, and none can stand here: put the text in quotes",
    'hosts: ["\\u00zz"]\n': (":1: between double quotes a backslash begins an escape, and this is none: use single quotes"),
    "hosts: [box/4]\npolicy: |random\n": ":2: '|' and '>' begin several lines of text: put the text in quotes",
    "hosts: [box/4]\npolicy: &\n": ":2: '&' and '*' begin names of anchors: put the text in quotes",
    "hosts: [box/4]\npolicy: !<\n": ":2: '!' begins a tag, which means nothing here: put the text in quotes",
    "%YAML 3.0\n---\nhosts: [box/4]\n": (
        ":1: the file claims a version of YAML that is not known here: leave the %YAML line out"
    ),
    "hosts: [box/4]\npolicy: ran\u0001dom\n": ":2: a character that YAML does not allow (U+0001): take it out",
    "hosts: &all [box/4, *all]\n": ":1: hosts[1]: *all stands for a value that it is itself a part of",
    "hosts: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n": (
        ":1: hosts[0][0]: lists and mappings inside each other more than 20 deep"
    ),
    "a: &a [[[[[[[[[[x]]]]]]]]]]\nb: [[[[[[[[[[*a]]]]]]]]]]\n": (
        ":2: b[0][0]: lists and mappings inside each other more than 20 deep"
    ),
    (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, "
        "*b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, "
        "*d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]\n"
    ): (":6: more than 200000 values, counting aliases as what they stand for"),
}
