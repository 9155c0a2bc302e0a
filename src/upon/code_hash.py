"""The name of code: a hash of what a pickled function says, not of how its pickle happens to be written.

The same function pickled twice can differ in bytes: a module read from its .pyc shares other strings than one just
compiled, and a set of constants comes in the order of the process's hash seed. Then each registration would be a new
version. So the pickle's operations are hashed with strings and bytes written out where it refers to earlier ones,
and sets of constants in sorted order. Nothing is executed: the service can check a hash.

Not named alike by two processes: code that brings a class along by value, for cloudpickle gives it a random id there.

    operation                        hashed as
    a string, bytes                  itself, also where the pickle says "the one of before"
    reference to another object      its number, in the order in which the objects come
    frozenset, set of scalars        its members, sorted
    PROTO, FRAME, memo bookkeeping   nothing

Source: the pickle virtual machine as `pickletools` describes it.
"""

from __future__ import annotations

import hashlib
import pickletools

LARGEST = 1024 * 1024
"""Bytes: a larger pickle, mostly data, is hashed as it is; reading its operations would take seconds."""

_TEXT = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_BYTES = frozenset({"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"})
_SILENT = frozenset({"PROTO", "FRAME"})
_PUTS = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_SETS = frozenset({"FROZENSET", "ADDITEMS"})


def code_hash(body: bytes) -> str:
    """Return the hash (SHA-256, hex) that names a pickled function.

    What is no pickle, or a large one, is named by the hash of its bytes.
    """
    if len(body) <= LARGEST:
        try:
            return hashlib.sha256("\n".join(_operations(body)).encode("utf-8", "surrogatepass")).hexdigest()
        except (ValueError, KeyError, IndexError):
            pass  # not a pickle: whoever tries to load it says so
    return hashlib.sha256(body).hexdigest()


def _operations(body: bytes) -> list[str]:
    """Return the operations to hash, one per line.

    Raises:
        ValueError, KeyError, IndexError: not a pickle.
    """
    lines: list[str] = []
    marks: list[int] = []
    memo: dict[int, str] = {}
    objects = 0
    for operation, argument, _ in pickletools.genops(body):
        name = operation.name
        if name in _SILENT:
            continue
        if name in _PUTS:
            index = len(memo) if name == "MEMOIZE" else int(str(argument))
            if lines[-1][0] in "tb":
                memo[index] = lines[-1]
            else:
                memo[index] = f"o {objects}"
                objects += 1
        elif name in _GETS:
            lines.append(memo[int(str(argument))])
        elif name in _TEXT:
            lines.append(f"t {argument!r}")
        elif name in _BYTES:
            lines.append(f"b {argument!r}")
        else:
            if pickletools.markobject in operation.stack_before:
                start = marks.pop() + 1
                if name in _SETS and all(line[0] in "tbs" for line in lines[start:]):
                    lines[start:] = sorted(lines[start:])
            elif name == "MARK":
                marks.append(len(lines))
            # A scalar: it pushes one thing and takes none.
            kind = "s" if not operation.stack_before and len(operation.stack_after) == 1 and name != "MARK" else "x"
            lines.append(f"{kind} {name} {argument!r}")
    return lines
