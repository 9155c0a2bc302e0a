"""The source text of functions that travel: gathered where they are pickled, shown in tracebacks where they run.

A body in the registry is

    pickle │ source text, MessagePack: {file: {first line: text}} │ length of that, 8 bytes │ MARK

An unpickler stops at the pickle's end, and so does the hash that names code: an edit of comments changes the text and
not the name. A body without MARK has no source text. At the worker the text goes into `linecache`, where tracebacks,
`inspect` and loggers look for it, under the file's own name and at its own lines, while a task of that code runs.

Guarantee: text never keeps a function from travelling or running: what is not to be had, too large or damaged is left
out. Limits: `MAX_TEXT` characters for each function that is submitted, lines up to number `MAX_LINE`.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType

import msgspec

MARK = b"upon-source-1\n"
MAX_TEXT = 256 * 1024
"""Characters of source text that travel with one function and what it uses."""
MAX_LINE = 200_000
"""The highest line number shown; a traceback of a line behind it has no text."""
_LENGTH = 8

Blocks = dict[str, dict[int, str]]
"""By file name and number of the first line."""
Lines = dict[str, list[str]]
"""By file name: all its lines, those that did not travel empty."""
_decode = msgspec.msgpack.Decoder(Blocks).decode


def gather(functions: Iterable[FunctionType]) -> Blocks:
    """Return the source text of functions as far as it can be had, the first ones first if it is too much for all."""
    blocks: Blocks = {}
    room = MAX_TEXT
    for function in functions:
        code = function.__code__
        text = _text(code, function.__globals__)
        if text and code.co_firstlineno not in blocks.get(code.co_filename, ()) and len(text) <= room:
            room -= len(text)
            blocks.setdefault(code.co_filename, {})[code.co_firstlineno] = text
    return blocks


def _text(code: CodeType, variables: Mapping[str, object]) -> str:
    """Return the lines of a function; empty when its file is not there, or is not what it was."""
    first, last = code.co_firstlineno, _last_line(code)
    lines = linecache.getlines(code.co_filename, dict(variables))[first - 1 : last] if 0 < first <= MAX_LINE else []
    if not lines or not _begins_with(code.co_name, lines[0]):
        return ""
    return "".join(lines)


def _begins_with(name: str, line: str) -> bool:
    """Tell whether a function of this name can begin with this line: else the file was edited since it was read."""
    return "lambda" in line if name == "<lambda>" else line.lstrip().startswith(("def", "async", "@", "class"))


def _last_line(code: CodeType) -> int:
    own = [line for _, _, line in code.co_lines() if line is not None]
    return max(
        [code.co_firstlineno, *own, *(_last_line(const) for const in code.co_consts if isinstance(const, CodeType))]
    )


def attach(pickle: bytes, blocks: Blocks) -> bytes:
    """Return a body: a pickle with source text behind it."""
    if not blocks:
        return pickle
    try:
        text = msgspec.msgpack.encode(blocks)
    except UnicodeEncodeError:  # a file whose name or text is no UTF-8
        return pickle
    return b"".join((pickle, text, len(text).to_bytes(_LENGTH, "big"), MARK))


def pickle_of(body: bytes) -> bytes:
    """Return a body without its source text."""
    return _split(body)[0]


def blocks_of(body: bytes) -> Blocks:
    """Return a body's source text; nothing if it has none, or a damaged one."""
    try:
        return _decode(_split(body)[1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _split(body: bytes) -> tuple[bytes, bytes]:
    if not body.endswith(MARK):
        return body, b"\x80"
    end = len(body) - len(MARK) - _LENGTH
    begin = end - int.from_bytes(body[end : end + _LENGTH], "big") if end >= 0 else -1
    return (body[:begin], body[begin:end]) if begin >= 0 else (body, b"\x80")


def lines_of(blocks: Blocks) -> Lines:
    """Return text as `linecache` has it: line by line, from the file's first."""
    found: Lines = {}
    for file, texts in blocks.items():
        lines: list[str] = []
        for first, text in sorted(texts.items()):
            if not 0 < first <= MAX_LINE:
                continue
            own = [line + "\n" for line in text.removesuffix("\n").split("\n")]
            lines += ["\n"] * (first - 1 + len(own) - len(lines))
            lines[first - 1 : first - 1 + len(own)] = own
        found[file] = lines
    return found


class Shown:
    """The source text of the code that runs in this process."""

    def __init__(self) -> None:
        self._lines: Lines = {}

    def show(self, lines: Lines) -> None:
        """Let tracebacks show these lines, and no longer those of before."""
        if lines is self._lines:
            return
        for file in self._lines.keys() - lines.keys():
            linecache.cache.pop(file, None)
        for file, text in lines.items():
            # No time of change: `linecache` then does not look for the file, which may be another one here.
            linecache.cache[file] = (sum(map(len, text)), None, text, file)
        self._lines = lines
