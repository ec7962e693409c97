"""hosts.yaml as it would have to be: what nobody touched stays to the letter, and the result says exactly what there is."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distbal import config, yamlfile
from distbal.decisions import Decision, Decisions, Place, applied, said_by_file
from distbal.errors import ConfigError, DistbalError
from distbal.export import comment, exported, moment, without_export
from distbal.hosts import Farm, HostSpec
from tests.support import ROOT

NOW = 1_795_780_800.0
PATH = "/etc/distbal/hosts.yaml"
Decided = tuple[str, str, Any]


def farm_of(text: str) -> Farm:
    return config.read(PATH, yamlfile.parse(PATH, text)).settings.farm


def decide(text: str, *decided: Decided, **words: Any) -> Decisions:
    """As the verbs do it: with what the file says now."""
    farm, decisions = farm_of(text), Decisions()
    for name, key, value in decided:
        decisions = decisions.with_(name, key, Decision(value, said_by_file(farm, name, key, value), **words))
    return decisions


def export(text: str, *decided: Decided, **words: Any) -> str:
    """The file without distbal's head; the farm that it gives is checked here too, and not only by the code itself."""
    decisions = decide(text, *decided, **words)
    made = exported(PATH, text, decisions, NOW)
    assert farm_of(made) == applied(farm_of(text), decisions)
    head, foot, body = made.partition("below, the file.)")
    assert foot
    assert all(line.startswith("#") for line in head.splitlines())
    return body[2:] if body.startswith("\r\n") else body[1:]


def new(name: str, slots: int = 4, **more: Any) -> Decided:
    host, _, port = name.partition(":")
    return name, "there", HostSpec(name, slots, 0, **({"address": (host, int(port or 3632))} | more))


FILE = """\
# the farm
hosts:   # fastest first
  # bought in May
  - big:3632/16,lzo   # rack 1

  # --- the small ones ---

  - [twin1/8, twin2/8]  # as fast as each other
  - name: own     # the odd one
    # by its other interface
    address: 10.0.0.7
    monitors: {tcp: false}
  - "[fd00::7]:3632/2"
  # - later/4
monitors: {tcp: true}   # and nobody else
"""


def test_without_decisions_nothing_changes_but_the_head() -> None:
    assert export(FILE) == FILE
    assert exported(PATH, FILE, Decisions(), NOW).splitlines()[:3] == [
        "# distbal exported this at 2026-11-27 12:00:00 UTC: the file as it would have to be",
        "# to keep what people decided since it was read. The file itself, /etc/distbal/hosts.yaml, is as it was.",
        "# (Up to here distbal's words; below, the file.)",
    ]


@pytest.mark.parametrize("name", ["hosts.yaml", "hosts-full.yaml"])
def test_the_files_that_come_with_distbal(name: str) -> None:
    text = (ROOT / "etc" / name).read_text()
    assert export(text) == text
    first = farm_of(text).hosts[0]
    changed = export(text, (first.name, "slots", first.slots + 1), new("late:3632", 7))
    assert len(set(changed.splitlines()) ^ set(text.splitlines())) == 3


@pytest.mark.parametrize(
    ("before", "name", "after"),
    [
        ("- big/16", "big", "- big/99"),
        ("- big/16,lzo,cpp  # fast", "big", "- big/99,lzo,cpp  # fast"),
        ("- big,lzo", "big", "- big/99,lzo"),
        ("- big", "big", "- big/99"),
        ('- "big/16,lzo"', "big", '- "big/99,lzo"'),
        ("- 'big/16'   ", "big", "- 'big/99'   "),
        ('- "[::1]:3632"', "[::1]:3632", '- "[::1]:3632/99"'),
        (r'- "b\x69g/16"', "big", "- big/99"),
        ("- |-\n    big/16", "big", "- big/99"),
        ("- {name: big, slots: 16}", "big", "- {name: big, slots: 99}"),
        ("- {slots: 16, name: big} # x", "big", "- {slots: 99, name: big} # x"),
        ("- {name: big}", "big", "- {name: big, slots: 99}"),
        ('- {"name":"big"}', "big", '- {"name":"big", slots: 99}'),
        ("- name: big\n    slots: auto  # as it says", "big", "- name: big\n    slots: 99  # as it says"),
        ("- slots: 16\n    name: big", "big", "- slots: 99\n    name: big"),
        ("- name: big", "big", "- name: big\n    slots: 99"),
        ("- name: big  # x\n    pools: [default]", "big", "- name: big  # x\n    slots: 99\n    pools: [default]"),
        ("-   name: big\n      options: lzo", "big", "-   name: big\n      slots: 99\n      options: lzo"),
        ("-\n    name: big\n    options: lzo", "big", "-\n    name: big\n    slots: 99\n    options: lzo"),
        ("- [a/1, big/16]", "big", "- [a/1, big/99]"),
        ("- [a/1,  # one\n     big/16  # two\n    ]", "big", "- [a/1,  # one\n     big/99  # two\n    ]"),
        ("- - a/1\n    # two\n    - big/16  # 2", "big", "- - a/1\n    # two\n    - big/99  # 2"),
        ("-\n    - a/1\n    - name: big", "big", "-\n    - a/1\n    - name: big\n      slots: 99"),
    ],
)
def test_slots_change_where_they_stand(before: str, name: str, after: str) -> None:
    around = "policy: random\nhosts:\n  - first/1   # 1\n  {}\n  # above\n  - last/2\nlisten: {{status: null}}\n"
    assert export(around.format(before), (name, "slots", 99)) == around.format(after)
    alone = "hosts:\n  {}"
    assert export(alone.format(before), (name, "slots", 99)) == alone.format(after)


def changed(*decided: Decided) -> list[str]:
    """FILE's lines that went, and those that came."""
    made = export(FILE, *decided)
    before, after = FILE.splitlines(), made.splitlines()
    return [f"-{line}" for line in before if line not in after] + [f"+{line}" for line in after if line not in before]


def test_a_removed_host_goes_with_the_comments_that_are_its_own() -> None:
    assert changed(("big:3632", "there", False)) == ["-  # bought in May", "-  - big:3632/16,lzo   # rack 1"]
    assert changed(("own", "there", False)) == [f"-{line}" for line in FILE.splitlines()[8:12]]
    twins = ["-  - [twin1/8, twin2/8]  # as fast as each other", "+  # as fast as each other", "+  - twin2/8"]
    assert changed(("twin1", "there", False)) == twins


def test_an_added_host_stands_at_its_place() -> None:
    assert export("hosts:\n- a/4   # a\n# b\n- b/2\n", new("c", 3)) == "hosts:\n- a/4   # a\n# b\n- b/2\n- c/3\n"
    assert export("hosts:\n- a/4\n# b\n- b/2\n", new("c", 3), ("c", "rank", Place("before", "a"))) == (
        "hosts:\n- c/3\n- a/4\n# b\n- b/2\n"
    )
    assert export("hosts:\n- a/4   # a\n# b\n- b/2\n", new("c", 3), ("c", "rank", Place("after", "a"))) == (
        "hosts:\n- a/4   # a\n- c/3\n# b\n- b/2\n"
    )
    assert export("hosts:\n- a/4\n- b/2\n", new("c", 3), ("c", "rank", Place("with", "a"))) == "hosts:\n- [a/4, c/3]\n- b/2\n"


def test_all_that_an_added_host_can_have() -> None:
    def added(*decided: Decided) -> str:
        text = "hosts:\n  - {name: a, pools: [arm, default]}\nlisten: {balance: [5656, {at: 1, pool: arm}]}\n"
        return export(text, *decided).splitlines()[2][4:]

    assert (
        added(new("c:3633", 3, options=",lzo,cpp", pools=("arm",)))
        == '{name: c:3633, slots: 3, options: "lzo,cpp", pools: [arm]}'
    )
    assert added(new("c", 3, options=",lzo", pools=("default", "arm"), address=("fd00::7", 1))) == (
        '{name: c, slots: 3, options: lzo, address: "[fd00::7]:1", pools: [default, arm]}'
    )
    assert added(new("c", 4, auto=True)) == "{name: c, slots: auto}"
    assert added(new("c", 3, options=",lzo")) == "c/3,lzo"


def test_a_host_moves_with_its_text() -> None:
    assert export(FILE, ("own", "rank", Place("before", "big:3632"))) == FILE.replace(
        "\n".join(FILE.splitlines()[8:12]) + "\n", ""
    ).replace("  # bought", "\n".join(FILE.splitlines()[8:12]) + "\n  # bought")
    assert changed(("big:3632", "rank", Place("with", "own"))) == [
        "-  # bought in May",
        "-  - big:3632/16,lzo   # rack 1",
        "-  - name: own     # the odd one",
        "-    # by its other interface",
        "-    address: 10.0.0.7",
        "-    monitors: {tcp: false}",
        "+  - - name: own     # the odd one",
        "+      # by its other interface",
        "+      address: 10.0.0.7",
        "+      monitors: {tcp: false}",
        "+    # bought in May",
        "+    - big:3632/16,lzo  # rack 1",
    ]
    assert export("hosts:\n- [a/1, b/2]  # x\n\n# y\n- c/3\n", ("a", "rank", Place("after", "c"))) == (
        "hosts:\n# x\n- b/2\n\n# y\n- c/3\n- a/1\n"
    )


def test_ranks_between_brackets_stay_between_brackets() -> None:
    assert export("hosts:\n  - [a/1, b/2]  # x\n  - c/3,lzo\n", ("c", "rank", Place("with", "a"))) == (
        'hosts:\n  - [a/1, b/2, "c/3,lzo"]  # x\n'
    )
    assert export("hosts:\n  - [a/1, b/2]  # x\n  - c/3\n", ("b", "there", False)) == "hosts:\n  # x\n  - a/1\n  - c/3\n"


def test_hosts_between_brackets() -> None:
    assert export("hosts: [a/4, 'b/2']  # all\n", ("a", "slots", 5)) == "hosts: [a/5, 'b/2']  # all\n"
    assert export("hosts: [a/4, 'b/2']  # all\n", ("a", "there", False), new("c", 3, options=",lzo")) == (
        "hosts: ['b/2', \"c/3,lzo\"]  # all\n"
    )
    assert export("hosts: [a/4, [b/2, c/1]]\n", ("a", "rank", Place("with", "c"))) == "hosts: [[b/2, c/1, a/4]]\n"
    several = "hosts: [\n    a/4,  # first\n    # of two\n    b/2\n    # end\n  ]  # all\npolicy: random\n"
    assert export(several, ("b", "slots", 3)) == several.replace("b/2", "b/3")
    assert export(several, ("b", "rank", Place("before", "a")), new("c", 1)) == (
        "hosts: [\n    # of two\n    # end\n    b/2,\n    a/4,  # first\n    c/1,\n]  # all\npolicy: random\n"
    )
    assert export('{"hosts": ["a/4", "b/2"], "policy": "random"}', ("a", "slots", 5), ("b", "there", False)) == (
        '{"hosts": ["a/5"], "policy": "random"}'
    )


WORDS = {"by": "mbp", "at": NOW - 3600, "why": "fan broken"}


def test_what_has_no_key_becomes_a_comment_at_the_host() -> None:
    text = "hosts:\n  # a\n  - a/4\n  - [b/2, c/1]\n"
    assert export(text, ("a", "admin", "drain"), ("c", "admin", "down"), ("c", "weight", 500), **WORDS) == (
        "hosts:\n  # a\n"
        "  # a: drained by mbp since 2026-11-27 11:00:00 UTC: fan broken\n"
        "  - a/4\n"
        "  # c: down by mbp since 2026-11-27 11:00:00 UTC: fan broken\n"
        "  # c: weight 0.5 by mbp since 2026-11-27 11:00:00 UTC: fan broken\n"
        "  - [b/2, c/1]\n"
    )
    assert export("policy: random\nhosts: [a/4]\n", ("a", "admin", "down"), at=NOW) == (
        "policy: random\n# a: down since 2026-11-27 12:00:00 UTC\nhosts: [a/4]\n"
    )
    assert exported(PATH, text, decide(text, ("a", "admin", "drain"), ("c", "weight", 0), **WORDS), NOW).splitlines()[2:5] == [
        "# There are no keys for these, so that they are comments here, and nothing to whom reads the file:",
        "#   admin of a, weight of c",
        "# (Up to here distbal's words; below, the file.)",
    ]


def test_where_no_comment_can_stand_the_head_has_it() -> None:
    drained: Decided = ("a", "admin", "drain")
    removed: Decided = ("a", "there", False)
    for text, decided in (('{"hosts": ["a/4"]}', [drained]), ("hosts: [b/4, a/4]", [drained, removed])):
        made = exported(PATH, text, decide(text, *decided, **WORDS), NOW)
        assert "\n# a: drained by mbp since 2026-11-27 11:00:00 UTC: fan broken\n# (Up to here" in made


def test_many_decisions_are_not_all_named_at_the_top() -> None:
    text = "hosts: [" + ", ".join(f"b{number}/1" for number in range(30)) + "]"
    made = exported(PATH, text, decide(text, *((f"b{number}", "weight", 1) for number in range(30))), NOW)
    assert "weight of b19, and 10 more\n" in made
    assert "# b29: weight 0.001 since" in made


@pytest.mark.parametrize(
    "why", ["a\nhosts: [evil/1]", "a\r\n- x", "\x85x", "\u2028x", "\x00\x1b[0m", "\ud800", "ü 雪 🧊", "x" * 5000]
)
def test_words_of_people_stay_in_their_comment(why: str) -> None:
    for text in ("hosts:\n  - a/4\n", "hosts: [a/4]\n", '{"hosts": ["a/4"]}'):
        made = export(text, ("a", "admin", "drain"), why=why, by=why, at=NOW)
        assert without_export(made) == text
    assert len(comment(why)) <= 1003
    assert comment("ü 雪\t🧊\n") == "ü 雪 🧊"


def test_a_moment_that_is_none() -> None:
    assert moment(NOW) == "2026-11-27 12:00:00 UTC"
    assert moment(float("inf")) == moment(float("nan")) == moment(1e300) == "0000-00-00 00:00:00 UTC"
    assert without_export(export("hosts:\n- a/4\n", ("a", "admin", "down"), at=1e300)) == "hosts:\n- a/4\n"


def test_a_path_stays_in_its_comment() -> None:
    assert (
        exported("a\nb: c", "hosts: [a/4]", Decisions(), NOW).splitlines()[1].endswith("The file itself, a b: c, is as it was.")
    )


def test_an_export_of_an_export_has_one_head_and_no_old_notes() -> None:
    decided = [("own", "admin", "drain"), ("big:3632", "slots", 3), new("c", 1), ("c", "rank", Place("with", "own"))]
    first = exported(PATH, FILE, decide(FILE, *decided, **WORDS), NOW)
    again = exported(PATH, first, decide(FILE, *decided, **WORDS), NOW)
    assert again == first
    later = exported(PATH, first, Decisions(), NOW + 1)
    assert later.count("distbal exported") == 1
    assert "drained" not in later
    mine = "# distbal exported this once\npolicy: random\nhosts: [a/4]\n"
    assert export(mine) == mine


@pytest.mark.parametrize("newline", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("end", ["", "end"])
def test_line_ends_stay_as_they_are(newline: str, end: str) -> None:
    text = "hosts:\n  - a/4  # a\n  - name: b".replace("\n", newline) + (newline if end else "")
    made = export(text, ("a", "admin", "drain"), ("b", "slots", 9), new("c", 1), at=NOW)
    assert made == (
        "hosts:\n  # a: drained since 2026-11-27 12:00:00 UTC\n  - a/4  # a\n  - name: b\n    slots: 9\n  - c/1"
    ).replace("\n", newline) + (newline if end else "")


def test_letters_of_all_kinds() -> None:
    text = "# ünï\t雪🧊\nhosts: # ü\n  - a/4 #\t🧊\n  # 雪\t\n  - b/2 \n"
    assert export(text, ("b", "slots", 3), ("b", "rank", Place("before", "a"))) == (
        "# ünï\t雪🧊\nhosts: # ü\n  # 雪\t\n  - b/3 \n  - a/4 #\t🧊\n"
    )


def test_anchors_and_aliases_stay_where_they_can() -> None:
    text = "hosts:\n  - name: a\n    monitors: &m {tcp: {interval: 20}}\n  - {name: b, monitors: *m}\n  - &c c/3\n"
    assert export(text, ("b", "slots", 9)) == text.replace("b, ", "b, slots: 9, ")
    assert export(text, ("c", "there", False), new("d", 1)) == text.replace("&c c/3", "d/1")
    # without the host that has the anchor the others are written out
    assert export(text, ("a", "there", False)) == ("hosts:\n  - {name: b, monitors: {tcp: {interval: 20}}}\n  - c/3\n")
    assert export(text, ("c", "slots", 9)) == text.replace("&c c/3", "c/9")
    behind = "hosts:\n  - name: a\n    monitors: &m {tcp: true}\n  - b/2\nmonitors: *m\n"
    with pytest.raises(
        DistbalError, match=r"hosts\.yaml cannot be written so that it keeps the present state: monitors: \*m stands for"
    ):
        export(behind, ("a", "there", False))


@pytest.mark.parametrize(
    "text",
    [
        "? hosts\n: - a/4\n  - b/2\n",
        "hosts: &h\n  - a/4\n  - b/2 # x\n",
        "hosts: &h [a/4, b/2]\n",
        "{hosts: &h [a/4, b/2]}\n",
        "---\nhosts:\n- a/4\n- b/2\n...\n",
        "%YAML 1.1\n---\nhosts:\n- a/4\n- b/2\n",
        '"hosts":\n  - a/4\n  -   "b\\\n    /2"\n',
        "hosts:\n  - >-\n    a/4\n\n  - b/2\n",
        "policy: random\n\nhosts:\n\n\n  - a/4\n\n\n  - b/2\n\n\n",
        "hosts:\n- ? name\n  : a\n- b/2\n",
        "hosts:\n- name: a\n  address:\n- b/2\n",
    ],
)
def test_odd_forms_come_out_right_too(text: str) -> None:
    assert export(text) == text
    for decided in (
        [("a", "slots", 9)],
        [("b", "slots", 9), ("a", "admin", "drain")],
        [("a", "there", False)],
        [("b", "there", False)],
        [("b", "rank", Place("before", "a"))],
        [("b", "rank", Place("with", "a")), ("a", "admin", "drain")],
        [new("c", 3), ("c", "rank", Place("before", "b")), ("a", "slots", 9)],
    ):
        export(text, *decided)


def test_what_no_file_can_say() -> None:
    with pytest.raises(DistbalError, match=r"every host was removed, and a hosts.yaml names one at least: nothing to export"):
        export("hosts: [a/4]", ("a", "there", False))
    pools = "hosts: [a/4, {name: b, pools: [arm]}]\nlisten: {balance: [5656, {at: 1, pool: arm}]}\n"
    with pytest.raises(DistbalError, match=r"keeps the present state: listen.balance\[1\].pool: no host serves the pool arm"):
        export(pools, ("b", "there", False))
    with pytest.raises(DistbalError, match=r"keeps the present state: c would not come out right"):
        export("hosts: [a/4]", new("c", 3, options="lzo"))  # a host that no verb makes: the comma is missing
    with pytest.raises(DistbalError, match=r"keeps the present state: hosts\[1\]: cpp \(pump mode\) needs lzo"):
        export("hosts: [a/4]", new("c", 3, options=",cpp"))
    with pytest.raises(ConfigError, match=r"hosts is missing"):
        exported(PATH, "policy: random", Decisions(), NOW)
    with pytest.raises(DistbalError, match=r"it would have [0-9]+ bytes, and a file has 2097152 at most"):
        export("hosts: [a/4]\n#" + "x" * (yamlfile.MOST_BYTES - 20))


def test_a_large_farm() -> None:
    text = "hosts:\n" + "".join(f"  - box{number}/8,lzo  # {number}\n" for number in range(10_000))
    made = export(text, ("box5000", "slots", 9), ("box9999", "rank", Place("before", "box0")), ("box7", "there", False))
    lines = text.splitlines(keepends=True)
    lines[5001] = lines[5001].replace("/8", "/9")
    assert made == "".join([lines[0], lines[-1], *lines[1:8], *lines[9:-1]])


# random files, random decisions

NAMES = [f"h{number}" for number in range(6)] + ["box:3632", "[fd00::7]:3633"]
COMMENTS = ["", "", "# words", "# - a: [b", '# "x', "# ünï 🧊", "#"]


@st.composite
def one_host(draw: st.DrawFn, name: str, *, flow: bool, column: int) -> str:
    """One host's text, whose first line begins in that column."""
    slots = draw(st.sampled_from(["", "/4", "/16"]))
    options = draw(st.sampled_from(["", "", ",lzo", ",lzo,cpp"]))
    bare = not name.startswith("[") and not (flow and options)
    forms = ["double", "single", "inline", *(["plain"] if bare else []), *([] if flow else ["block"])]
    form = draw(st.sampled_from(forms))
    text = f"{name}{slots}{options}"
    if form in ("plain", "double", "single"):
        quote = {"plain": "", "double": '"', "single": "'"}[form]
        return f"{quote}{text}{quote}"
    keys = [f'name: "{name}"']
    keys += draw(st.sampled_from([[], ["slots: 8"], ["slots: auto"]]))
    keys += draw(st.sampled_from([[], ["address: 10.0.0.7"], ['options: "lzo,cpp"'], ["monitors: {tcp: {fall: 2}}"]]))
    keys = draw(st.permutations(keys))
    if form == "inline":
        return "{" + ", ".join(keys) + "}"
    lines = []
    for key in keys:
        lines += [key + "  " + draw(st.sampled_from(COMMENTS))]
        if draw(st.booleans()):
            lines.append(draw(st.sampled_from(["", "# inside"])))
    while not lines[-1] or lines[-1].startswith("#"):
        lines.pop()
    return ("\n" + " " * column).join(lines)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A good file, and the comments in it that stand outside of its hosts."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    numbers = count()
    outside: list[str] = []

    def mark() -> str:
        outside.append(f"# outside {next(numbers)}")
        return outside[-1]

    above = draw(st.sampled_from(["", "policy: random  {}\n", "{}\n", "%YAML 1.1\n---\n"])).format(mark())
    below = draw(st.sampled_from(["", "monitors: {{tcp: true}}  {}\n", "{}\n\n", "queue:\n  order: fifo  {}\n"])).format(mark())
    outside = [one for one in outside if one in above + below]
    ranks: list[list[str]] = []
    for name in names:
        together: bool = draw(st.booleans())
        if ranks and together:
            ranks[-1].append(name)
        else:
            ranks.append([name])
    if draw(st.integers(0, 3)) == 0:
        gap = draw(st.sampled_from([" ", "\n    ", "  # in the list\n  "]))
        made = [[draw(one_host(name, flow=True, column=0)) for name in rank] for rank in ranks]
        inner = [texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]" for texts in made]
        last = draw(st.sampled_from(["", gap]))
        block = f"hosts: [{gap if last else ''}{(',' + gap).join(inner)}{last}]  {draw(st.sampled_from(COMMENTS))}\n"
    else:
        pad = draw(st.sampled_from(["", "  ", "    "]))
        block = f"hosts:  {draw(st.sampled_from(COMMENTS))}\n"
        for rank in ranks:
            block += draw(st.sampled_from(["", "\n", f"{pad}# mine\n", f"{pad}# free\n\n", "      # elsewhere\n"]))
            if len(rank) == 1 and draw(st.integers(0, 3)):
                block += f"{pad}- {draw(one_host(rank[0], flow=False, column=len(pad) + 2))}"
            elif draw(st.booleans()):
                block += f"{pad}- [{', '.join(draw(one_host(name, flow=True, column=0)) for name in rank)}]"
            else:
                texts = [draw(one_host(name, flow=False, column=len(pad) + 4)) for name in rank]
                between = draw(st.sampled_from([f"\n{pad}  - ", f"  # x\n{pad}  # y\n{pad}  - "]))
                block += f"{pad}- - {between.join(texts)}"
            block += f"  {draw(st.sampled_from(COMMENTS))}\n"
    text = above + block + below
    if draw(st.booleans()):
        text = text.removesuffix("\n")
    return text.replace("\n", draw(st.sampled_from(["\n", "\n", "\r\n"]))), outside


NAMED = st.sampled_from([*NAMES, "new1", "new2:1"])
PLACES = st.builds(Place, st.sampled_from(["before", "with", "after"]), NAMED)
DECIDED: st.SearchStrategy[Decided] = st.one_of(
    st.tuples(NAMED, st.just("slots"), st.integers(1, 999_999)),
    st.tuples(NAMED, st.just("rank"), PLACES),
    st.tuples(NAMED, st.just("there"), st.just(False)),
    st.tuples(NAMED, st.just("admin"), st.sampled_from(["down", "drain"])),
    st.tuples(NAMED, st.just("weight"), st.integers(0, 1000)),
    st.sampled_from(
        [new("new1", 7), new("new2:1", 3, options=",lzo"), new("new1", 2, address=("fd00::9", 7), options=",lzo,cpp")]
    ),
)
EASY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150)


@EASY
@given(files(), st.lists(DECIDED, max_size=6), st.text(max_size=20))
def test_any_decisions_on_any_file(file: tuple[str, list[str]], decided: list[Decided], words: str) -> None:
    text, outside = file
    decisions = decide(text, *decided, by=words, why=words, at=NOW)
    if not applied(farm_of(text), decisions).hosts:
        with pytest.raises(DistbalError, match="every host was removed"):
            exported(PATH, text, decisions, NOW)
        return
    made = exported(PATH, text, decisions, NOW)
    assert "written anew" not in made
    farm = applied(farm_of(text), decisions)
    assert farm_of(made) == farm
    assert not [one for one in outside if one not in made]
    kept = {spec.name for spec in farm.hosts} & {spec.name for spec in farm_of(text).hosts}
    if not [one for one in decided if one[1] in ("there", "rank")]:
        untouched = text.splitlines()
        for line in made.splitlines():
            if line in untouched:
                untouched.remove(line)
        # of each host one line at most differs: the one with its slots; several may share one
        assert len(untouched) <= len({name for name, key, _ in decided if key == "slots" and name in kept})
    if farm_of(made) == applied(farm_of(made), decisions):
        assert exported(PATH, made, decisions, NOW) == made


@EASY
@given(files())
def test_no_decisions_on_any_file(file: tuple[str, list[str]]) -> None:
    assert export(file[0]) == file[0]


@EASY
@given(files(), st.lists(DECIDED, max_size=3), st.data())
def test_whatever_else_stands_in_the_file(file: tuple[str, list[str]], decided: list[Decided], data: st.DataObject) -> None:
    text = file[0]
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(text)))
        inserted = data.draw(
            st.sampled_from(["\n", "  ", "- ", "#", " #x", "[", "]", ",", ": ", "&a ", "*a", '"', "'", "|\n", "\u2028", "\x85"])
        )
        text = text[:place] + inserted + text[place + data.draw(st.integers(0, 1)) :]
    try:
        decisions = decide(text, *decided, at=NOW)
    except ConfigError:
        return
    if applied(farm_of(text), decisions).hosts:
        export(text, *decided, at=NOW)
