"""The contract of an event source. Built-in sources and a stranger's plug-in keep the same one.

A source turns what happens somewhere into events. It is a class with a `Config` and a `run`, registered under its
kind in the entry-point group `upon.sources`; `docs/sources.md` shows one whole.

**Life cycle.** The runner makes an instance and calls `run()` in a thread of its own:

    made ──run()──▶ starting ──context.ready()──▶ emitting ──context.stopping set──▶ run returns       stopped
                        └──────────────────────────────┴─── run returns by itself ──▶ end of input     never restarted
                        └──────────────────────────────┴─── run raises ─────────────▶ failed           restarted

  - `run` returns within 2 s after `context.stopping` is set: wait with `context.stopping.wait(seconds)`, never sleep.
  - A source that fails (raises) is made anew, with the same checkpoint, after a pause that grows from 0.5 to 60 s;
    other sources go on meanwhile. A `ConfigError` is no passing fault: such a source is not restarted.
  - What `run` opened it closes before it returns or raises. There is no other call to clean up.

**Publishing.** `context.publish(event, then)`:

  - It returns once the event is *accepted*: held in memory, in order. It blocks while the publisher is full, which is
    how a source feels back-pressure; while it blocks, a source should not take in more than it can hold.
  - `then` is called once, later, from another thread, when the event is *safe*: Kafka has it, on all in-sync replicas.
    From then on, and not before, the source may forget it: acknowledge it where it came from, write its checkpoint.
    `then` must be quick, must not raise and must not call `publish`. (A disk spool may one day make an event safe
    sooner. Safe means durable, not consumed.)
  - An event that can never be stored is refused at once: `publish` raises `EventError` (its data is no JSON) or
    `PayloadTooLarge`. The source says what it means and goes on; raising it again would only fail again.
  - When the system stops, `publish` raises `Stopped`. Let it pass: the runner takes it for a return.
  - If the process dies first, `then` is never called. The source must find the event again after a restart, from
    where it came from and its checkpoint, and publish it again.

**Redelivery.** An event may thus reach Kafka twice, but never silently not at all. So that its *effect* takes place
once, the same happening must always give the same `id` and `source`: use `event_id`, never a random one. A rule derives
its invocation's id from these, and the second is dropped where the effect would be.

**Order.** Events of equal key (`partitionkey`, else the subject) reach Kafka in the order of `publish`. Events of
different keys may overtake each other.

**Sources whose world forgets.** A monitor or a socket does not repeat what the process had in memory when it died.
Such a source says so in its documentation and emits the present state when it starts.

**Replaying.** A source that can say again what it has announced also has a `replay`.

Not here: how events travel (`publisher`), how sources are found (`registry`) and restarted (`supervised`).
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from upon.durations import parse_duration
from upon.errors import SourceError
from upon.events import Event

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from upon.triggers.checkpoint import Checkpoint

#: The name space of derived event ids. Changing it makes every source repeat its events' effects after an upgrade.
EVENTS = uuid.UUID("3f0f5a0e-6f0b-5a52-8f5e-0a5d5d3a7c21")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class Stopped(SourceError):
    """The system stops: nothing is accepted any more. A source lets it pass."""


def event_id(*identity: str) -> str:
    """Return the event id of one happening: a UUIDv5 of what makes it that one, equal on every replay."""
    return str(uuid.uuid5(EVENTS, "\x00".join(identity)))


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("use letters, digits, '_', '.' and '-', at most 63, the first a letter or digit")
    return name


def _relative_to_file(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path.cwd())
    return Path(os.path.abspath(Path(folder, path.expanduser())))


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds; a user writes 500ms, 2s, 30m, 1h, 7d."""
LocalPath = Annotated[Path, AfterValidator(_relative_to_file)]
"""An absolute path; a user may write one relative to the sources file, or with ~."""


class SourceConfig(BaseModel):
    """What every source is told. A kind adds its own fields, each with a description: the docs come from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_checked_name)] = Field(description="unique; names the source's checkpoint")
    kind: str = Field(description="an entry point of the group upon.sources, such as filesystem")


Then = Callable[[], None]
Publish = Callable[[Event, Then | None], None]


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Context:
    """What a source has of its surroundings.

    Attributes:
        publish: accept an event; the module's docstring says what that means.
        checkpoint: what the source remembers over a restart.
        stopping: set when `run` shall return.
        log: a logger that knows the source's name.
        ready: call once, when the source emits what happens from now on.
    """

    publish: Callable[..., None]  # (event: Event, then: Then | None = None)
    checkpoint: Checkpoint
    stopping: threading.Event
    log: FilteringBoundLogger
    ready: Callable[[], None] = field(default=_nothing)


C = TypeVar("C", bound=SourceConfig)


class Source(ABC, Generic[C]):
    """An event source; the module's docstring is the contract.

    Args:
        config: what the user wrote, validated.
        context: what it may use.
    """

    Config: ClassVar[type[Any]] = SourceConfig

    def __init__(self, config: C, context: Context) -> None:
        self.config = config
        self.context = context

    @abstractmethod
    def run(self) -> None:
        """Emit events until `context.stopping` is set, or there are no more.

        Raises:
            ConfigError: it can never work as it is configured.
            SourceError: it cannot go on now; the message says why and what to do.
        """

    def replay(self, since_ns: int | None, paths: str | None) -> Iterator[Event]:
        """Yield again what was announced and is there still, with the ids that it had: a new rule may want it.

        Rules that have run on an event do not run again, for its id is the same. Called without `run`, in another
        process, while the source runs; its checkpoint can be read only.

        Args:
            since_ns: only what happened since then, ns since the epoch.
            paths: only what matches this glob.

        Raises:
            SourceError: this kind of source cannot (the default), or not now.
        """
        raise SourceError(f"a source of kind {self.config.kind!r} cannot announce again what is past")
