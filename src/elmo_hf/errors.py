"""A mistake in the input, said in one sentence; command lines print it in place of a traceback."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO


class ElmoError(ValueError):
    """What is wrong, where, and what to do about it, in one sentence.

    >>> read_vectors("nowhere")
    Traceback (most recent call last):
    elmo_hf.errors.ElmoError: ...nowhere...

    Names and values in it may come from foreign files, so no control character of theirs reaches a terminal.
    It may name an address, so passwords and signatures in one are left out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(escaped(without_secrets(str(message))))


_USER = re.compile(r"(?<=://)[^/\s?#]*@")  # user:password@ before the host
_QUERY = re.compile(r"(://[^\s?'\"]*\?)[^\s'\"?]*=[^\s'\"]*?(?=[).,:;]*(?:[\s'\"]|$))")  # ?signature=...


def without_secrets(text: str) -> str:
    """The text with *** for what may be a secret in its addresses: user and password, and the query."""
    return _QUERY.sub(r"\1***", _USER.sub("***@", text)) if "://" in text else text


def reason_of(error: BaseException) -> str:
    """A library's error in a few words: the system's own, or the first sentence of the first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    messages = [text.strip() for text in error.args if isinstance(text, str) and text.strip()]
    return messages[-1].splitlines()[0].split(". ")[0].rstrip(".: ") if messages else type(error).__name__


def quoted(value: object, limit: int = 80) -> str:
    """A value from outside, fit for a message: without control characters, and cut in the middle."""
    text = str(value)
    if len(text) > limit:
        text = f"{text[: limit - 20]}...{text[-17:]}"
    return escaped(text)


def escaped(text: str) -> str:
    """The text with control characters and the like written out, as in Python's own quotes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def program_name() -> str:
    """The name of the running script, such as pretrain.py, for its help and its messages."""
    return Path(sys.argv[0]).name


class StoreOnce(argparse.Action):
    """Stores the values of an option that takes several. Given a second time it is refused: the second values
    would replace the first, without a word."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, dest, nargs="+", **keywords)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, name: Any = None
    ) -> None:
        if getattr(namespace, self.dest, self.default) is not self.default:
            parser.error(f"argument {name}: is given twice; write all its values behind one {name}")
        setattr(namespace, self.dest, values)


def warn(sentence: str) -> None:
    print(f"{program_name()}: {sentence}", file=sys.stderr)


def sentence_of(error: BaseException) -> str:
    """An error on one line with a full stop; a system's error with its file's name in place of its number."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C."
    if isinstance(error, BrokenPipeError):
        return "the program that reads the output has ended."
    if is_out_of_memory(error):
        return f"there is not enough memory ({reason_of(error)}); use less at a time, or a smaller model."
    text = " ".join(str(error).splitlines())
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = quoted(without_secrets(text), 2000)
    return text if text.endswith((".", "?")) else text + "."


def is_out_of_memory(error: BaseException) -> bool:
    """Python and numpy raise MemoryError, the system an OSError, and torch a RuntimeError that only its text
    tells from others."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    texts = ("out of memory", "allocate memory", "bad_alloc", "_ALLOC_FAILED")
    is_of_torch = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    return isinstance(error, MemoryError) or is_of_torch


@contextmanager
def one_sentence(program: str) -> Iterator[None]:
    """What a command line runs: a mistake in the input ends it with a sentence and exit code 1, and so do a
    lack of memory and an output that cannot be written. Ctrl-C ends it with 130.

    `ValueError` is caught as well as `ElmoError`, because the files that travel to the Hub (`model/`) cannot
    import this one.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    try:
        yield
        for stream in streams:
            _flush(stream)  # otherwise Python notices a closed pipe or a full disk only after the program
    except (KeyboardInterrupt, ValueError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        with suppress(OSError):
            print(f"{program}: {sentence_of(error)}", file=sys.stderr)
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
    finally:
        for stream in streams:
            _discard_unwritable(stream)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError as error:
        error.filename = stream.name
        raise


def _discard_unwritable(stream: TextIO) -> None:
    """Python tries to write what a closed pipe or a full disk has not taken once more at its exit."""
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


# Controls, bidirectional overrides, invisible tags, halves of surrogate pairs; not tabs and line breaks.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Somebody's text without characters that steer a terminal or hide what a page shows."""
    return HIDDEN.sub("\ufffd", text)
