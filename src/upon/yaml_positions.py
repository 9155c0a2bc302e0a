"""YAML that remembers where each value stands, so that an error can say file:line:column.

    data, positions = load(text, "rules.yaml")
    data["rules"][0]["name"]                        what it says
    positions[("rules", 0, "name")]                 (3, 11): where the value begins, 1-based
    positions.key(("rules", 0, "name"))             (3, 5): where its key stands (for "unknown field")
    positions.nearest(("rules", 0, "run", "site"))  the place itself, or that of the closest parent there is

Guarantees: only the types of JSON come out (a date stays the text that it is); a key that stands twice in one
mapping, a tag, a second document, an alias inside itself or one that multiplies without bounds is an error with
its place. Merge keys (``<<: *base``) work. Not here: what the data means; callers turn `YamlError` into
`RuleError` or `ConfigError`.
"""

from __future__ import annotations

from typing import Any

import yaml

from upon.errors import InputError

Path = tuple[str | int, ...]
Position = tuple[int, int]

MAX_SIZE = 4 * 1024 * 1024
"""Characters of one document."""
MAX_NODES = 200_000
"""Values in one document, aliases counted as often as they are used: a bound on documents made to explode."""
MAX_DEPTH = 100
MAX_NUMBER = 400
"""Characters of one number; reading base 60 (``1:30``) takes time quadratic in them."""

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))


class YamlError(InputError):
    """Not YAML, or YAML with more in it than plain data.

    Attributes:
        problem: what is wrong; file: its name as given; line, column: 1-based, 0 when unknown.
    """

    def __init__(self, problem: str, *, file: str, line: int = 0, column: int = 0) -> None:
        self.problem, self.file, self.line, self.column = problem, file, line, column
        super().__init__(f"{file}:{line}:{column}: {problem}" if line else f"{file}: {problem}")


class Positions(dict[Path, Position]):
    """Where each value begins, by its path from the document's root, which is ``()``."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[Path, Position] = {}

    def key(self, path: Path) -> Position:
        """Return where the key of a mapping's entry stands; of a sequence's item, or the root, the value's place."""
        return self._keys.get(path) or self.nearest(path)

    def nearest(self, path: Path) -> Position:
        """Return the place of a value, or of the closest parent that is there; (0, 0) for an empty document."""
        for length in range(len(path), -1, -1):
            if (found := self.get(path[:length])) is not None:
                return found
        return 0, 0


def field_name(path: Path) -> str:
    """Return a path as messages write it: ``("rules", 0, "upon", "type")`` → ``rules[0].upon.type``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def load(text: str, file: str) -> tuple[Any, Positions]:
    """Read one YAML document.

    Args:
        text: the document; empty gives None.
        file: its name, for messages.

    Raises:
        YamlError: with line and column.
    """
    if len(text) > MAX_SIZE:
        raise YamlError(f"has {len(text):,} characters, the limit is {MAX_SIZE:,}: split it", file=file)
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        raise _unreadable(text, file, error) from error
    try:
        node = loader.get_single_node()
        builder = _Builder(loader, file)
        return (None if node is None else builder.value(node, ())), builder.positions
    except yaml.reader.ReaderError as error:
        raise _unreadable(text, file, error) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context)
        if not isinstance(error, _TooMuch):
            problem = f"not YAML: {problem}"
        raise YamlError(problem, file=file, **_place(mark)) from error
    except RecursionError:
        raise YamlError("nested too deeply", file=file) from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates, which are no JSON, and without the `=` that PyYAML resolves and then cannot build.

    Bounded while it composes: documents of many values, deep ones, and merges of merges end before they take memory.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._composed = self._depth = self._merged = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._composed += 1
        self._depth += 1
        if self._composed > 2 * MAX_NODES:  # keys are nodes, but no values
            raise self._refusal(f"more than {MAX_NODES} values")
        if self._depth > MAX_DEPTH + 1:
            raise self._refusal(f"nested more than {MAX_DEPTH} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        seen: dict[tuple[str, str], tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:  # the last one counts; without those before, merges do not multiply
            if not isinstance(key, yaml.ScalarNode):
                return
            seen[key.tag, key.value] = key, value
        node.value = list(seen.values())
        self._merged += len(node.value)
        if self._merged > MAX_NODES:
            raise self._refusal(f"merge keys make more than {MAX_NODES} values", node.start_mark)

    def _refusal(self, problem: str, mark: yaml.Mark | None = None) -> Exception:
        here = mark or self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return _TooMuch(problem=problem, problem_mark=here)


class _TooMuch(yaml.MarkedYAMLError):
    """A document beyond one of the bounds."""


_UNRESOLVED = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _UNRESOLVED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Builder:
    """Turns composed nodes into plain data and notes each one's place."""

    def __init__(self, loader: _Loader, file: str) -> None:
        self.loader, self.file = loader, file
        self.positions = Positions()
        self._open: set[int] = set()
        self._flattened: set[int] = set()
        self._nodes = 0

    def value(self, node: yaml.Node, path: Path, entry: yaml.Node | None = None) -> Any:
        place = _place(node.start_mark)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise YamlError(f"more than {MAX_NODES} values (aliases count as often as used)", file=self.file, **place)
        if len(path) > MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} deep", file=self.file, **place)
        if node.tag not in _PLAIN_TAGS:
            raise YamlError(f"tag {_short(node.tag)} is not allowed: plain data only", file=self.file, **place)
        if id(node) in self._open:
            raise YamlError("an alias that contains itself", file=self.file, **place)
        self.positions[path] = place["line"], place["column"]
        if entry is not None:
            at = _place(entry.start_mark)
            self.positions._keys[path] = at["line"], at["column"]
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        if id(node) not in self._flattened:  # an alias meets it again, when merged keys rightly repeat
            self._refuse_duplicates(node)
            self._flattened.add(id(node))
            self.loader.flatten_mapping(node)
        out: dict[Any, Any] = {}
        for key_node, child in node.value:
            key = self._scalar(key_node)
            out[key] = self.value(child, (*path, key), key_node)
        return out

    def _refuse_duplicates(self, node: yaml.MappingNode) -> None:
        seen: dict[Any, yaml.Mark] = {}
        for key_node, _ in node.value:
            place = _place(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError("a key must be a plain value, not a list or mapping", file=self.file, **place)
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self._scalar(key_node)
            if key in seen:
                raise YamlError(
                    f"key {key!r} stands twice, first in line {seen[key].line + 1}", file=self.file, **place
                )
            seen[key] = key_node.start_mark

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag not in _PLAIN_TAGS:
            place = _place(node.start_mark)
            raise YamlError(f"tag {_short(node.tag)} is not allowed: plain data only", file=self.file, **place)
        if len(node.value) > MAX_NUMBER and node.tag.endswith((":int", ":float")):
            long = f"a number of more than {MAX_NUMBER} characters"
            raise YamlError(long, file=self.file, **_place(node.start_mark))
        try:
            value = self.loader.construct_object(node)
        except ValueError as error:
            raise YamlError(f"not a value: {error}", file=self.file, **_place(node.start_mark)) from error
        if problem := _unstorable(value):
            raise YamlError(problem, file=self.file, **_place(node.start_mark))
        return value


def _unstorable(value: Any) -> str | None:
    """Return why no record can hold a scalar: JSON and MessagePack have integers of 64 bits, and text in UTF-8."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "a whole number of more than 64 bits: write it as text, in quotes"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"the character {value[error.start]!r} is half of a pair and cannot be stored"
    return None


def _place(mark: yaml.Mark | None) -> dict[str, int]:
    return {"line": 0, "column": 0} if mark is None else {"line": mark.line + 1, "column": mark.column + 1}


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _unreadable(text: str, file: str, error: yaml.reader.ReaderError) -> YamlError:
    before = text[: error.position]
    line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
    return YamlError(f"not YAML: character {error.character!r} is not allowed", file=file, line=line, column=column)
