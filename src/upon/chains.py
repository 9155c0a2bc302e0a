"""Chains: which firings led to an event, so that a rule which feeds itself stops.

    event e1 ─▶ rule "copy" fires ─▶ its task publishes e2 ─▶ "copy" fires ─▶ e3 ─▶ …
                chain {copy: 1}      uponroot=e1              chain {copy: 2}
                                     uponchain="copy=1"

A task knows its cause through the environment variable `CAUSE` of its worker, which threads and child processes
inherit; what the SDK publishes there carries it on as two CloudEvents extensions. Pure but for reading the variable.
Not here: the limit (`upon.streams.firing`). Not known: what made a file that a source announces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from upon.errors import EventError
from upon.messages import Cause

ROOT, CHAIN = "uponroot", "uponchain"
"""Extensions of an event that a task published: the id of the chain's first event, and its firings by rule."""
CAUSE = "UPON_CAUSE"
"""Environment variable of a running task that a rule fired."""
MAX_CHAIN = 4_000
"""Characters of `uponchain`: a chain through more rules than that is stopped as well."""
_FIRINGS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})=([1-9][0-9]{0,5})")


def chain_of(extensions: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    """Return the root (empty: none) and the firings by rule that an event's extensions tell of.

    Raises:
        EventError: there is a chain that cannot be read.
    """
    root, text = extensions.get(ROOT, ""), extensions.get(CHAIN, "")
    found: dict[str, int] = {}
    for word in str(text).split():
        if (one := _FIRINGS.fullmatch(word)) is None:
            raise EventError(f"{CHAIN}: {word[:60]!r} is no RULE=NUMBER, such as copy=2")
        found[one[1]] = int(one[2])
    return str(root), found


def chain_text(chain: Mapping[str, int]) -> str:
    """Return firings by rule as the extension has them."""
    return " ".join(f"{rule}={times}" for rule, times in chain.items())


def to_environment(cause: Cause | None) -> str:
    """Return what `CAUSE` holds while a task runs; empty: no rule fired it."""
    if cause is None:
        return ""
    return msgspec.json.encode((cause.root or cause.event_id, chain_text(cause.chain or {cause.rule: 1}))).decode()


def enter(text: str) -> None:
    """Let this process know the cause of the task that it runs from now on."""
    if text:
        os.environ[CAUSE] = text
    else:
        os.environ.pop(CAUSE, None)


def descending(extensions: dict[str, Any]) -> dict[str, Any]:
    """Return an event's extensions with the cause of the task that publishes it, if this is one and they have none."""
    text = os.environ.get(CAUSE)
    if not text or ROOT in extensions or CHAIN in extensions:
        return extensions
    try:
        root, chain = msgspec.json.decode(text, type=tuple[str, str])
    except msgspec.DecodeError:  # not ours
        return extensions
    return {**extensions, ROOT: root, CHAIN: chain}
