"""What ``distbal upgrade`` does behind the daemon's yes: waits until the new code answers, and says what it took up.

The admin socket's listener is never closed, so that whoever connects meanwhile waits in its queue. Whoever was accepted by the
old code as the last is cut by the exec, and asks again. Of the standard library alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from distbal import adminclient
from distbal.errors import DistbalError
from distbal.tables import taken_up

#: seconds for the daemon's answer: the trial has 30, and jobs may have to be drained that cannot be carried
PATIENCE = 300.0
#: seconds for the new code to answer, and between two questions
LONGEST, AGAIN = 60.0, 0.05


def wait(path: str, answer: Mapping[str, Any], longest: float = LONGEST) -> dict[str, Any]:
    """Wait until the new code answers.

    :param path: the admin socket's.
    :param answer: to the verb.
    :param longest: seconds to wait.
    :returns: the answer, with what became of it: a sentence, the new image, seconds.
    :raises DistbalError: it came to nothing after all, or the new code does not answer; the text says which.
    """
    began = time.monotonic()
    deadline = began + longest
    why = "it has not begun"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with adminclient.Connection(path, left) as daemon:
                image = daemon.ask(["status"])["image"]
        except adminclient.NotPermittedError:
            raise
        except DistbalError as error:
            why = str(error)
        else:
            if image["at"] != answer["image"]["at"]:
                seconds = time.monotonic() - began
                text = f"distbal {answer['before']} goes on as {image['version']} after {seconds:.2f} s: {taken_up(image)}"
                return {**answer, "text": text, "image": image, "seconds": round(seconds, 3)}
            if image["trouble"]:
                raise DistbalError(f"not upgraded: {image['trouble']}")
            why = "the old code still answers"
        time.sleep(AGAIN)
    raise DistbalError(f"the new code has not answered for {longest:g} s: {why}")
