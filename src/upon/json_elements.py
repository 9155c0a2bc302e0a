"""The elements of a JSON array as they stand, also of one that does not parse: what one bad element leaves of the rest.

A parser gives up on the whole text when one element is no JSON, nests too deeply or holds a number that no machine
has. Here only strings and brackets are looked at, without recursion, in time linear in the text.
Not here: parsing the elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[\[{]+|[\]}]+|,', re.DOTALL)
_SPACE = b" \t\r\n"


def split_array(text: bytes) -> Iterator[bytes] | None:
    """Return the elements of a JSON array, in order; None when the text as a whole is none.

    Args:
        text: UTF-8.
    """
    begin = len(text) - len(text.lstrip(_SPACE))
    if text[begin : begin + 1] != b"[" or _end(text, begin) is None:
        return None
    return _elements(text, begin)


def _end(text: bytes, begin: int) -> int | None:
    """Return where the bracket stands that closes the array, if nothing but space follows."""
    depth = 0
    for token in _TOKEN.finditer(text, begin):
        depth += _change(token)
        if depth <= 0:
            end = token.end() - 1
            return end if depth == 0 and not text[end + 1 :].strip(_SPACE) else None
        if token[1] == b"":  # a string without an end
            return None
    return None


def _elements(text: bytes, begin: int) -> Iterator[bytes]:
    depth, start = 0, begin + 1
    for token in _TOKEN.finditer(text, begin):
        depth += _change(token)
        if depth == 0:
            last = text[start : token.end() - 1].strip(_SPACE)
            if last or start > begin + 1:
                yield last
            return
        if depth == 1 and text[token.start()] == _COMMA:
            yield text[start : token.start()].strip(_SPACE)
            start = token.end()


_COMMA, _OPENING, _CLOSING = ord(","), b"[{", b"]}"


def _change(token: re.Match[bytes]) -> int:
    """Return by how much a token changes the depth: a run of brackets is one token."""
    text = token[0]
    first = text[:1]
    return len(text) if first in _OPENING else -len(text) if first in _CLOSING else 0
