"""Hosts that are wrong, each with what is said of it; the rest of the file is in tests/invalid_configs.py."""

from __future__ import annotations

LONG_LABEL = "x" * 64 + ".example.org"
LONG_NAME = ".".join(["x" * 60] * 5)

#: a host written as one text, and what is said of it
HOST_TEXTS: dict[str, str] = {
    "box/4:3632": "distcc's old order, HOST/SLOTS:PORT: write box:3632/4",
    "box/4:3632,lzo": "distcc's old order, HOST/SLOTS:PORT: write box:3632/4,lzo",
    "box=4:3632": "distcc's old order, HOST/SLOTS:PORT: write box:3632/4",
    "box=4": "write '/' for '=': box/4",
    "box:3632=4": "write '/' for '=': box:3632/4",
    "@box/4": ('"@box/4" is a host over ssh, which distbal does not do: run distccd there and write its name, HOST[:PORT]'),
    "me@box": ('"me@box" is a host over ssh, which distbal does not do: run distccd there and write its name, HOST[:PORT]'),
    "[::1]@box": (
        '"[::1]@box" is a host over ssh, which distbal does not do: run distccd there and write its name, HOST[:PORT]'
    ),
    "--randomize": "--randomize is no host: write policy: random",
    "--localslots=4": "--localslots=4 belongs to the clients' own DISTCC_HOSTS, where distbal-wrap keeps it",
    "--localslots_cpp=8": "--localslots_cpp=8 belongs to the clients' own DISTCC_HOSTS, where distbal-wrap keeps it",
    "--verbose": '"--verbose" is an option, not a host',
    "-box/4": '"-box/4" is an option, not a host',
    "+zeroconf": "distbal does not look for hosts by zeroconf: name each of them",
    "box/0": "a host has at least 1 slot: leave it out of the file to send it nothing",
    "box/00": "a host has at least 1 slot: leave it out of the file to send it nothing",
    "box/-1": 'slots are a whole number, 1 to 999999, not "-1"',
    "box/x": 'slots are a whole number, 1 to 999999, not "x"',
    "box/": 'slots are a whole number, 1 to 999999, not ""',
    "box/007": "the slots are 7, without a zero in front",
    "box/1/2": "only one /SLOTS stands in a host's text",
    "box/1000000": 'slots are a whole number, 1 to 999999, not "1000000"',
    "box:0": '"box:0": a port is 1 to 65535, not "0"',
    "box:70000": '"box:70000": a port is 1 to 65535, not "70000"',
    "box:": "\"box:\": a port stands after the ':'",
    "box:x/4": '"box:x": a port is 1 to 65535, not "x"',
    "box:03632": '"box:03632": the port is 3632, without a zero in front',
    ":3632/4": '":3632/4" has no name: HOST[:PORT][/SLOTS][,OPTIONS]',
    "box/4,cpp": "cpp (pump mode) needs lzo beside it: lzo,cpp",
    "box/4,auth,cpp": "cpp (pump mode) needs lzo beside it: lzo,cpp",
    "box/4,foo": '"foo" is no option of distcc: the options are lzo, cpp (with lzo) and auth',
    "box/4,": "no option between two commas, or after the last: the options are lzo, cpp (with lzo) and auth",
    "box/4,LZO": "options are written in small letters: lzo",
    "box/4,lzo,lzo": "lzo stands twice",
    "box/4,auth,auth=x": "auth stands twice",
    "box/4,down": "clients that are sent a host marked down wait for ever: leave the host out instead",
    "box/4,zstd": "zstd is not an option of any distcc release so far: lzo is",
    "box/4,auth=": 'auth=NAME has a NAME of letters, digits and "_./-"',
    "box/4,lzo/2": '"lzo/2" is no option of distcc: the options are lzo, cpp (with lzo) and auth',
    "box 1/4": "2 words: a host has no spaces, and an entry of its own",
    "box/4 ": "no spaces in a host's text: box/4",
    "box/4, lzo": "no spaces in a host's text: box/4,lzo",
    "box1/4 box2/4": "2 words: a host has no spaces, and an entry of its own",
    "": "a host has a name: HOST[:PORT][/SLOTS][,OPTIONS]",
    "box\n": "a host's text is one word without line ends or control characters",
    "box\t/4": "a host's text is one word without line ends or control characters",
    "lzo": '"lzo" is an option, not a host: between [ and ] a comma ends a text, so put the whole in quotes',
    "bøx/4": '"bøx" is no host: names are ASCII: write an international one in its xn-- form',
    "box-/4": "\"box-\" is no host: no part of it begins or ends with '-'",
    "a..b/4": '"a..b" is no host: nothing stands between two dots, or before the first',
    ".a/4": '".a" is no host: nothing stands between two dots, or before the first',
    "a$b/4": "\"a$b\" is no host: a name is made of letters, digits, '-', '_' and dots, not \"$\"",
    "a{b}/4": "\"a{b}\" is no host: a name is made of letters, digits, '-', '_' and dots, not \"{\"",
    "http://box": '"http://box" is a URL: write HOST[:PORT] alone',
    "tcp://box:3632": '"tcp://box:3632" is a URL: write HOST[:PORT] alone',
    "box#1": "a host's text holds no '#'; a YAML comment has a space in front of it",
    "10.0.0/4": '"10.0.0" is no host: an IPv4 address is four numbers of 0 to 255 with dots between',
    "10.300.1.1/4": '"10.300.1.1" is no host: an IPv4 address is four numbers of 0 to 255 with dots between',
    "3632": '"3632" is no host: an IPv4 address is four numbers of 0 to 255 with dots between',
    "010.0.0.1": '"010.0.0.1" is no host: an IPv4 address is four numbers of 0 to 255 with dots between',
    "[fd00::7": '"[fd00::7" lacks the ] that ends an IPv6 address',
    "[fd00::g]": '"[fd00::g]" is no host: "fd00::g" is no IPv6 address',
    "[::1]x": '"[::1]x": after the ] stands nothing, or :PORT',
    "[1.2.3.4]": '"[1.2.3.4]" is no host: "1.2.3.4" is no IPv6 address',
    "fd00::7": 'an IPv6 address needs brackets, and so quotes in YAML: "[fd00::7]"',
    "fd00::7/4,lzo": 'an IPv6 address needs brackets, and so quotes in YAML: "[fd00::7]/4,lzo"',
    "::1:3632:x": '"::1:3632:x" has no name: HOST[:PORT][/SLOTS][,OPTIONS]',
    "box]": "\"box]\" is no host: a name is made of letters, digits, '-', '_' and dots, not \"]\"",
    LONG_LABEL: f'"{LONG_LABEL}" is no host: between two dots stand at most 63 characters',
    LONG_NAME: f'"{LONG_NAME}" is no host: a name has at most 253 characters, not 304',
    "b" * 401: "a host's text has at most 400 characters, not 401",
}

#: the only entry of ``hosts``, and what is said of it on its line
HOST_ENTRIES: dict[str, str] = {
    "[box1/4, [box2/4]]": (
        "hosts[0][1]: a list inside a rank: a rank holds hosts, which are as fast as each other, and no lists"
    ),
    "3632": (
        "hosts[0]: 3632 is a number to YAML: a host is NAME[/SLOTS][,OPTIONS], NAME being HOST[:PORT], or a mapping with a name"
    ),
    "10.1": (
        "hosts[0]: 10.1 is a number to YAML: a host is NAME[/SLOTS][,OPTIONS], NAME being HOST[:PORT], or a mapping with a name"
    ),
    "true": (
        "hosts[0]: true is a truth value to YAML: a host is NAME[/SLOTS][,OPTIONS], NAME being HOST[:PORT], or a "
        "mapping with a name"
    ),
    "1:30": 'hosts[0]: "1" is no host: an IPv4 address is four numbers of 0 to 255 with dots between',
    "box1: 3632": 'hosts[0]: "box1: 3632" is a mapping to YAML, because of the space: write box1:3632',
    "box1: 3632/4,lzo": ('hosts[0]: "box1: 3632/4,lzo" is a mapping to YAML, because of the space: write box1:3632/4,lzo'),
    "box1:3632/4:": 'hosts[0]: "box1:3632/4:" makes a mapping: write box1:3632/4 alone, or - name: box1:3632',
    "nme: box1": "hosts[0].nme: unknown key; did you mean name?",
    "{nam: x}": "hosts[0].nam: unknown key; did you mean name?",
    "{nam: x, slots: 4}": "hosts[0].nam: unknown key; did you mean name?",
    "box1: {slots: 4}": 'hosts[0]: "box1:" makes a mapping: write box1 alone, or - name: box1',
    "box1/4: 3632": 'hosts[0]: "box1/4:" makes a mapping: write box1/4 alone, or - name: box1',
    "[fd00::7]": 'hosts[0][0]: an IPv6 address needs brackets, and so quotes in YAML: "[fd00::7]"',
    "{name: box, slots: 4, options: lzo,cpp}": (
        "hosts[0].cpp: cpp is an option: between { and } a comma ends a text, so put the whole in quotes"
    ),
    "[box/4, other/4, box/4]": "hosts[0][2]: box stands twice, first on line 2: keep one, with all of its slots",
    "slots: 4": (
        "hosts[0]: a name is missing: a host is NAME[/SLOTS][,OPTIONS], NAME being HOST[:PORT], or a mapping with a name"
    ),
    "name: box/4": "hosts[0].name: the name is box alone; write slots: 4 beside it",
    "{name: 'box,lzo', slots: 4}": "hosts[0].name: the name is box alone; write options: lzo beside it",
    "{name: 'box:99999', slots: 4}": 'hosts[0].name: "box:99999": a port is 1 to 65535, not "99999"',
    "{name: 12, slots: 4}": 'hosts[0].name: 12 is no text; in quotes, "12", it is one: a name is HOST[:PORT]',
    "{name: , slots: 4}": "hosts[0].name: nothing is no text: a name is HOST[:PORT]",
    "{name: box, slotz: 4}": "hosts[0].slotz: unknown key; did you mean slots?",
    "{name: box, slots: 4, 5: x}": (
        "hosts[0].5: unknown key; the keys here are name, slots, address, options, pools, monitors"
    ),
    "{name: box, slots: 0}": ("hosts[0].slots: a host has at least 1 slot: leave it out of the file to send it nothing"),
    "{name: box, slots: -4}": 'hosts[0].slots: slots are a whole number, 1 to 999999, not "-4"',
    "{name: box, slots: 1000000}": 'hosts[0].slots: slots are a whole number, 1 to 999999, not "1000000"',
    "{name: box, slots: '4'}": 'hosts[0].slots: "4" is a text: a number has no quotes',
    "{name: box, slots: four}": 'hosts[0].slots: slots are a whole number, 1 to 999999, not "four"',
    "{name: box, slots: 04}": "hosts[0].slots: the slots are 4, without a zero in front",
    "{name: box, slots: 2.5}": 'hosts[0].slots: slots are a whole number, 1 to 999999, not "2.5"',
    "{name: box, slots: }": "hosts[0].slots: nothing is no number: 1 to 999999 is wanted",
    "{name: box, slots: true}": "hosts[0].slots: true is no number: 1 to 999999 is wanted",
    "{name: box, slots: [4]}": "hosts[0].slots: a list is no number: 1 to 999999 is wanted",
    "{name: box, slots: 4, address: 10.0.0.300}": (
        'hosts[0].address: "10.0.0.300" is no host: an IPv4 address is four numbers of 0 to 255 with dots between'
    ),
    "{name: box, slots: 4, address: 'fd00::7'}": (
        'hosts[0].address: an IPv6 address needs brackets, and so quotes in YAML: "[fd00::7]"'
    ),
    "{name: box, slots: 4, address: '[fd00::7'}": ('hosts[0].address: "[fd00::7" lacks the ] that ends an IPv6 address'),
    "{name: box, slots: 4, address: '[::1]x'}": 'hosts[0].address: "[::1]x": after the ] stands nothing, or :PORT',
    "{name: box, slots: 4, address: 10.0.0.7:0}": 'hosts[0].address: "10.0.0.7:0": a port is 1 to 65535, not "0"',
    "{name: box, slots: 4, address: 3632}": ("hosts[0].address: 3632 is no address: HOST[:PORT], such as 10.0.0.7:3632"),
    "{name: box, slots: 4, options: ',lzo'}": "hosts[0].options: no comma in front of the options here: lzo",
    "{name: box, slots: 4, options: [lzo]}": ('hosts[0].options: a list is no text: options are lzo, lzo,cpp or auth, or ""'),
    "{name: box, slots: 4, options: cpp}": "hosts[0].options: cpp (pump mode) needs lzo beside it: lzo,cpp",
    "{name: box, slots: 4, options: 'lzo, cpp'}": "hosts[0].options: no spaces between options: lzo,cpp",
    "{name: box, slots: 4, pools: default}": "hosts[0].pools: a list is wanted, even of one: [default]",
    "{name: box, slots: 4, pools: []}": (
        "hosts[0].pools: the list is empty: the pools that the host serves, such as [default]"
    ),
    "{name: box, slots: 4, pools: }": (
        "hosts[0].pools: nothing where a list is wanted: the pools that the host serves, such as [default]"
    ),
    "{name: box, slots: 4, pools: [default, default]}": 'hosts[0].pools: "default" stands twice',
    "{name: box, slots: 4, pools: [default, a b]}": (
        "hosts[0].pools[1]: \"a b\" is no name of a pool: letters, digits, '-', '_' and dots, at most 64"
    ),
    "{name: box, slots: 4, pools: [default, 1]}": (
        'hosts[0].pools[1]: 1 is no text; in quotes, "1", it is one: the name of a pool'
    ),
    "{name: box, slots: 4, address: ':3632'}": 'hosts[0].address: "" is no host: there is no name in front',
    "{name: box, slots: 4, address: 'a b:3632'}": (
        "hosts[0].address: \"a b\" is no host: a name is made of letters, digits, '-', '_' and dots, not \" \""
    ),
    "[box/4, [fd00::7]:3632]": (
        'hosts[0][1]: [fd00::7] is a list to YAML: put the whole text in quotes, as in "[fd00::7]:3632"'
    ),
}
