"""The name of code: a hash of what a pickled function says, not of how its pickle happens to be written.

The same function pickled twice can differ in bytes: a module read from its .pyc shares other strings than one just
compiled, a set of constants comes in the order of the process's hash seed, a comment moves lines, a class that
travels by value has an identity that cloudpickle drew. Then each registration would be a new version. So the pickle
is read by a machine with a stack, as the unpickler has one, on which lie names of values in place of values:

    on the stack                          is named by
    a scalar, text, bytes, a global       what it is
    tuple, frozenset                      the names of its members (a frozenset's sorted)
    code                                  the names of its parts, without file, line numbers and line table
    every other object                    its number, in the order in which objects come; what makes and changes it
                                          is hashed as it goes by
    a set of the above but the last       its members, sorted

Guarantees: nothing is executed, so the service can check a hash; time and memory are linear in the body, whatever
its bytes; nothing recurses. Equal names mean equal code, for honest bodies: a name proves nothing of where it is from.
Not named alike: code pickled under other minor versions of Python, and what names its own file (`__file__`).

Source: the pickle virtual machine as `pickletools` describes it; cloudpickle 3.0 to 3.1.3.
"""

from __future__ import annotations

import hashlib
import pickletools
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from upon.source_text import pickle_of

OPERATIONS = 200_000
"""A pickle of more operations, mostly data, is named by the hash of its bytes: reading them would take seconds."""

_SILENT = frozenset({"PROTO", "FRAME"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CHANGES = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
_CALLS = frozenset({"REDUCE", "NEWOBJ"})

_PLAIN, _OBJECT, _MARK = b"p", b"o", b"("


def _digest(kind: bytes, parts: Iterable[bytes]) -> bytes:
    """Return the name of a value made of parts; its first byte tells whether there is an object among them."""
    digest = hashlib.sha256(kind)
    plain = True
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
        plain = plain and part[:1] == _PLAIN
    return (_PLAIN if plain else _OBJECT) + digest.digest()


def _scalar(kind: str, argument: object) -> bytes:
    """Return the name of a scalar; text and bytes are named alike whatever operation brings them."""
    if isinstance(argument, str):
        data, kind = argument.encode("utf-8", "surrogatepass"), "str"
    elif isinstance(argument, bytes | bytearray):
        data, kind = bytes(argument), type(argument).__name__
    elif isinstance(argument, int):
        data = hex(argument).encode()  # in decimal it would be quadratic
    else:
        data = repr(argument).encode()
    whole = kind.encode() + b" " + data
    return _PLAIN + (whole if len(whole) < 32 else hashlib.sha256(whole).digest())


def _global(module: str, name: str) -> bytes:
    return _digest(b"global", (_scalar("", module), _scalar("", name)))


_BUILTIN_TYPE = _global("cloudpickle.cloudpickle", "_builtin_type")
_CODE = _digest(b"call", (_BUILTIN_TYPE, _digest(b"tuple", (_scalar("", "CodeType"),))))
_PURE = frozenset({_BUILTIN_TYPE, _global("builtins", "complex"), _global("cloudpickle.cloudpickle", "subimport")})
"""What makes immutable values only: how often one stands in the pickle tells nothing."""
_POSITIONS = {18: (10, 13, 14), 16: (10, 12, 13)}
"""By number of parts of a code object (Python 3.11, 3.10): its file name, first line and line table."""
_IDENTITIES = {
    _global("cloudpickle.cloudpickle", "_make_skeleton_class"): (6, 4),
    _global("cloudpickle.cloudpickle", "_make_skeleton_enum"): (7, 5),
    _global("cloudpickle.cloudpickle", "_make_typevar"): (6, 5),
}
"""What makes classes: how many arguments it takes, and which of them is the identity."""
IDENTITY = "upon:"
"""How an identity begins that says what the class is (`upon.pickling`); all others are drawn at random."""
_IDENTITY = b"pstr " + IDENTITY.encode()
_LENGTHS = frozenset({16, 18, 6, 7})
_FIRST_LINE = _scalar("", "__firstlineno__")
"""Where a class begins, as Python 3.13 has it among a class's attributes."""


def code_hash(body: bytes) -> str:
    """Return the hash (SHA-256, hex) that names a pickled function.

    The source text behind a body's pickle has no part in it. What is no pickle, or has very many operations, is named
    by the hash of its bytes. Takes some µs an operation: at most a second; a caller with an event loop calls it in a
    thread.
    """
    body = pickle_of(body)
    try:
        operations = ((operation.name, argument) for operation, argument, _ in pickletools.genops(body))
        return _Machine().run(operations)
    except (ValueError, KeyError, IndexError, OverflowError):
        return hashlib.sha256(body).hexdigest()  # not a pickle, or too long: whoever tries to load it says so


class _Machine:
    """Reads operations; raises ValueError, KeyError or IndexError for what is no pickle."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._stack: list[bytes] = []
        self._memo: dict[int, bytes] = {}
        self._objects = 0
        self._sets: dict[bytes, list[bytes]] = {}
        self._parts: dict[bytes, list[bytes]] = {}  # of tuples that may be the arguments of code or of a class

    def run(self, operations: Iterator[tuple[str, Any]]) -> str:
        for name, argument in islice(operations, OPERATIONS):
            if name == "STOP":
                return self._end()
            if name not in _SILENT:
                self._step(name, argument)
        raise ValueError("more operations than are read")

    def _end(self) -> str:
        for number, members in self._sets.items():
            self._log(b"set", (number, *sorted(members)))
        self._log(b"is", self._stack)
        return self._hash.hexdigest()

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _PUTS:
            self._memo[int(argument)] = stack[-1]
        elif name in _GETS:
            stack.append(self._memo[int(argument)])
        elif name in _TUPLES:
            self._tuple(self._popped(_TUPLES[name]))
        elif name == "TUPLE":
            self._tuple(self._since_mark())
        elif name == "FROZENSET":
            members = self._since_mark()
            plain = all(member[:1] == _PLAIN for member in members)
            stack.append(_digest(b"frozenset", sorted(members) if plain else members))
        elif name == "STACK_GLOBAL":
            stack.append(_digest(b"global", self._popped(2)))
        elif name == "GLOBAL":
            stack.append(_global(*str(argument).split(" ", 1)))
        elif name in _CALLS:
            self._call(name.encode(), *self._popped(2))
        elif name in _CHANGES:
            self._change(name)
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            self._other(name, argument)

    def _call(self, kind: bytes, function: bytes, arguments: bytes) -> None:
        parts = self._parts.get(arguments)
        if function == _CODE and parts is not None and len(parts) in _POSITIONS:
            left_out = _POSITIONS[len(parts)]
            self._stack.append(_digest(b"code", [part for i, part in enumerate(parts) if i not in left_out]))
        elif function in _PURE:
            self._stack.append(_digest(b"call", (function, arguments)))
        else:
            expected = _IDENTITIES.get(function)
            if expected is not None and parts is not None and len(parts) == expected[0]:
                arguments = _digest(
                    b"class",
                    [part for i, part in enumerate(parts) if i != expected[1] or part.startswith(_IDENTITY)],
                )
            self._object(kind, function, arguments)

    def _change(self, name: str) -> None:
        """What changes an object that is there: the topmost below what is added to it."""
        several = name.endswith("S")
        if name == "BUILD":
            added = self._popped(1)
        else:
            added = self._since_mark() if several else self._popped(2 if name == "SETITEM" else 1)
        target = self._stack[-1]
        if name == "ADDITEMS" and target in self._sets:
            if all(member[:1] == _PLAIN for member in added):
                self._sets[target].extend(added)
                return
        elif name in ("SETITEM", "SETITEMS"):
            added = [one for i in range(0, len(added), 2) if added[i] != _FIRST_LINE for one in added[i : i + 2]]
        # Whether items come one by one or in batches says nothing; which object gets them, and in which order, does.
        self._log(name.rstrip("S").encode(), (target, *added))

    def _other(self, name: str, argument: Any) -> None:
        operation = _OPERATIONS[name]
        if not operation.stack_before and len(operation.stack_after) == 1 and not name.startswith(_MUTABLE):
            self._stack.append(_scalar(name, argument))
            return
        if pickletools.markobject in operation.stack_before:
            taken = self._since_mark()
        else:
            taken = self._popped(len(operation.stack_before))
        if argument is not None:
            taken.append(_scalar(name, argument))
        number = self._object(name.encode(), *taken)
        if name == "EMPTY_SET":
            self._sets[number] = []

    def _object(self, kind: bytes, *parts: bytes) -> bytes:
        number = _OBJECT + str(self._objects).encode()
        self._objects += 1
        self._log(kind, (number, *parts))
        self._stack.append(number)
        return number

    def _tuple(self, members: list[bytes]) -> None:
        found = _digest(b"tuple", members)
        if len(members) in _LENGTHS:
            self._parts[found] = members
        self._stack.append(found)

    def _log(self, kind: bytes, parts: Iterable[bytes]) -> None:
        self._hash.update(_digest(kind, parts))

    def _popped(self, count: int) -> list[bytes]:
        if count == 0:
            return []
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        found = self._stack[-count:]
        if _MARK in found:
            raise ValueError("a mark in place of a value")
        del self._stack[-count:]
        return found

    def _since_mark(self) -> list[bytes]:
        found: list[bytes] = []
        pop: Callable[[], bytes] = self._stack.pop
        while (top := pop()) != _MARK:
            found.append(top)
        found.reverse()
        return found


_OPERATIONS = {operation.name: operation for operation in pickletools.opcodes}
_MUTABLE = ("EMPTY_", "BYTEARRAY", "PERSID", "NEXT_BUFFER", "EXT")
"""What pushes an object of its own, or something that stands elsewhere."""
