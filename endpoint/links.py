"""A manager's connections: one to each dispatcher that its site may have, active or standing by.

    connected() ── there is a new connection to whom the manager serves, or may come to serve
    received(message) ── what the one that it serves says
    send(message) ──▶ to that one; to all, while nobody was heard yet
    beat(message) ──▶ to all: so one that has just become active learns of this manager

Not here: whom it serves (`decisions.allegiance`), sockets (`upon.endpoint.link`), what is said (`manager`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from upon.dispatcher.protocol import FromDispatcher, FromManager, Heartbeat
from upon.endpoint.decisions.allegiance import Allegiance
from upon.endpoint.link import Link
from upon.errors import ConfigError
from upon.logs import get_logger

log = get_logger(__name__)


class Links:
    """The connections, from now until `close`.

    Args:
        addresses: tcp://HOST:PORT, several with commas between.
        curve: folder of keys (`upon.dispatcher.keys`).
        identity: this manager's id.
        connected, received: see above.

    Raises:
        ConfigError: an address is none or stands there twice, or a key is damaged.
    """

    def __init__(
        self,
        addresses: str,
        curve: Path,
        identity: str,
        *,
        connected: Callable[[], None],
        received: Callable[[FromDispatcher], None],
    ) -> None:
        named = [address.strip() for address in addresses.split(",") if address.strip()]
        if len(set(named)) < len(named):
            raise ConfigError(f"UPON_DISPATCHER names a dispatcher twice: {addresses}")
        self._connected, self._received = connected, received
        self._allegiance = Allegiance()
        self._refused: set[tuple[int, int]] = set()  # places and epochs of which that was said
        self._links: list[Link] = []
        self.addresses = named
        try:
            for place, address in enumerate(named):
                hear = partial(self._on_message, place)
                greet = partial(self._on_connected, place)
                self._links.append(Link(address, curve, identity, connected=greet, received=hear))
        except ConfigError:
            self.close()
            raise

    def send(self, message: FromManager) -> bool:
        """Send a message; False if nobody is connected whom it is for."""
        serving, epoch = self._allegiance.serving, self._allegiance.epoch
        if serving is not None:
            return self._links[serving].send(message, epoch)
        sent = [link.send(message, epoch) for link in self._links]
        return any(sent)

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say to all that this manager is there."""
        for link in self._links:
            link.send(heartbeat, self._allegiance.epoch)

    def close(self) -> None:
        """Close; what was sent has 0.2 s to leave."""
        for link in self._links:
            link.close()

    def _on_connected(self, place: int) -> None:
        if self._allegiance.greets(place):
            self._connected()

    def _on_message(self, place: int, message: FromDispatcher, epoch: int) -> None:
        before = self._allegiance.serving
        if not self._allegiance.takes(place, epoch):
            if (place, epoch) not in self._refused:
                self._refused.add((place, epoch))
                log.warning(
                    "a dispatcher that was superseded is not heard",
                    action="refuse",
                    dispatcher=self.addresses[place],
                    epoch=epoch,
                    serving=self._allegiance.epoch,
                )
            return
        if before not in (None, place):
            log.info("another dispatcher is the active one now", action="turn", dispatcher=self.addresses[place])
        self._received(message)
