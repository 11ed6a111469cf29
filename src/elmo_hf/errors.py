"""A mistake in the input, said in one sentence; command lines print it in place of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ElmoError(ValueError):
    """What is wrong, where, and what to do about it, in one sentence.

    Names and values in it may come from foreign files, so no control character of theirs reaches a terminal.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(message)))


def reason_of(error: BaseException) -> str:
    """A library's error in a few words: the system's own, or the first sentence of the first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    messages = [part.strip() for part in error.args if isinstance(part, str) and part.strip()]
    return messages[-1].splitlines()[0].split(". ")[0].rstrip(".: ") if messages else type(error).__name__


def program_name() -> str:
    """The name of the running script, such as pretrain.py, for its help and its messages."""
    return Path(sys.argv[0]).name


@contextmanager
def one_sentence(program: str) -> Iterator[None]:
    """What a command line runs: a mistake in the input ends it with a sentence and exit code 1.

    `ValueError` is caught as well as `ElmoError`, because the files that travel to the Hub (`model/`) cannot
    import this one.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(1)
