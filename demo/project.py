"""The project that is built: C files of unequal size, and a program whose answer shows that they were all compiled right."""

from __future__ import annotations

import subprocess
from pathlib import Path

from farm import DemoError

MAKEFILE = """\
CFLAGS = -O2 -Wall -Werror
objects = $(patsubst src/%.c,out/%.o,$(wildcard src/*.c))

answer: $(objects)
\t$(CC) -o $@ $^

out/%.o: src/%.c src/parts.h
\t$(CC) $(CFLAGS) -c $< -o $@
"""

FUNCTION = """
static unsigned step_{step}(unsigned x)
{{
    unsigned table[16];
    for (unsigned i = 0; i < 16; i++)
        table[i] = x * (i + {step}u) ^ (x >> (i & 7));
    for (unsigned round = 0; round < 64; round++)
        table[round & 15] += table[(round + {step}u) & 15] ^ round;
    return table[{step}u & 15];
}}
"""


def write(directory: Path, files: int) -> list[str]:
    """Write the project.

    :param files: how many C files, at least 2; the last is the program's main.
    :returns: their paths in it, as the compiler is told them.
    """
    source = directory / "src"
    source.mkdir(parents=True)
    (directory / "out").mkdir()
    (directory / "Makefile").write_text(MAKEFILE)
    parts = [f"part_{number:02}" for number in range(1, files)]
    (source / "parts.h").write_text("".join(f"unsigned {part}(void);\n" for part in parts))
    for number, part in enumerate(parts, 1):
        (source / f"{part}.c").write_text(_part(part, number))
    calls = " + ".join(f"{part}()" for part in parts)
    (source / "main.c").write_text(
        f'#include <stdio.h>\n#include "parts.h"\n\nint main(void)\n{{\n    printf("%u\\n", {calls});\n    return 0;\n}}\n'
    )
    return [f"src/{name}.c" for name in (*parts, "main")]


def _part(part: str, number: int) -> str:
    steps = range(1, 4 + number * 7 % 11)
    calls = "".join(f"    sum |= step_{step}({number}u);\n" for step in steps)
    functions = "".join(FUNCTION.format(step=step) for step in steps)
    # the steps are there to be compiled; what the part answers is its number
    body = f"    unsigned sum = 0;\n{calls}    return sum == 0xdeadbeefu ? 0 : {number};\n"
    return f'#include <stdlib.h>\n#include <string.h>\n#include "parts.h"\n{functions}\nunsigned {part}(void)\n{{\n{body}}}\n'


def try_out(directory: Path, files: int) -> str:
    """Run the program; words about its answer. DemoError when the answer is wrong."""
    answer = subprocess.run([directory / "answer"], capture_output=True, check=True, text=True).stdout.strip()
    right = str(sum(range(1, files)))
    if answer != right:
        raise DemoError(f"the program answers {answer}, and {right} would be right")
    return f"the program gives the right answer, {answer}"
