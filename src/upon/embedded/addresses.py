"""Where the parts of a system meet: chosen before any of them starts, kept from start to start."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from upon.embedded.ports import HOST, free_port, is_free, owner
from upon.errors import ConfigError

EVERYWHERE = ("0.0.0.0", "::", "*", "")
"""Hosts that stand for every address of the machine: good to listen at, not to connect to."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts meet."""

    kafka: str
    listen: str  # HOST:PORT, where the service listens
    dispatcher: str  # tcp://HOST:PORT, where the dispatcher listens

    @property
    def service(self) -> str:
        """Where a client on this machine finds the service."""
        return f"http://{reachable(self.listen)}"

    def ports(self, part: str) -> set[int]:
        """Return the ports at which a part of ours listens; Kafka's are its own."""
        listening = {"service": self.listen, "dispatcher": self.dispatcher}
        return {port(listening[part])} if part in listening else set()

    def environment(self, part: str) -> dict[str, str]:
        """Return what a part is told of them over its environment."""
        dispatcher = self.dispatcher
        if part != "dispatcher":
            dispatcher = "tcp://" + reachable(dispatcher.removeprefix("tcp://"))
        return {
            "UPON_KAFKA": self.kafka,
            "UPON_LISTEN": self.listen,
            "UPON_SERVICE": self.service,
            "UPON_DISPATCHER": dispatcher,
        }


def chosen(
    *,
    kafka: str,
    listen: str = f"{HOST}:0",
    dispatcher: str = "",
    last_service: str = "",
    last_dispatcher: str = "",
    avoid: Collection[int] = (),
) -> Addresses:
    """Return the addresses of this start: what the user wants, else those of the last start, else free ones.

    Args:
        kafka: its address, as it is.
        listen: HOST:PORT for the service; port 0 = that of the last start if it is free, else any free one.
        dispatcher: tcp://HOST:PORT for the dispatcher, likewise; empty: 127.0.0.1.
        last_service, last_dispatcher: addresses of the last start, empty if there was none.
        avoid: ports that seemed free and were not.

    Raises:
        ConfigError: an address is not of that form, or its port is taken.
    """
    place = dispatcher or f"tcp://{HOST}:0"
    if not place.startswith("tcp://"):
        raise ConfigError(f"setting dispatcher (environment UPON_DISPATCHER): tcp://HOST:PORT, not {dispatcher!r}")
    service = _with_port("listen", listen, last_service, avoid)
    return Addresses(
        kafka=kafka,
        listen=service,
        dispatcher="tcp://"
        + _with_port("dispatcher", place.removeprefix("tcp://"), last_dispatcher, {*avoid, port(service)}),
    )


def port(address: str) -> int:
    """Return an address's port, 0 if it names none."""
    text = address.rpartition(":")[2]
    return int(text) if text.isascii() and text.isdigit() else 0


def reachable(address: str) -> str:
    """Return HOST:PORT as a client on this machine connects to it."""
    host, _, number = address.rpartition(":")
    if host.strip("[]") not in EVERYWHERE:
        return address
    return f"{'[::1]' if ':' in host else HOST}:{number}"


def _with_port(setting: str, wanted: str, last: str, avoid: Collection[int]) -> str:
    host, colon, number = wanted.rpartition(":")
    if not (host and colon and number.isascii() and number.isdigit() and int(number) < 65536):
        raise ConfigError(f"setting {setting} (environment UPON_{setting.upper()}): HOST:PORT, not {wanted!r}")
    if int(number):
        if not is_free(int(number), host.strip("[]")):
            by = owner(int(number))
            raise ConfigError(
                f"setting {setting} (environment UPON_{setting.upper()}): cannot listen at {wanted}: "
                f"{f'the port is taken by {by}' if by else 'it is taken, or no address of this machine'}; "
                "end that program, or choose another address"
            )
        return wanted
    before = port(last)
    usable = before and before not in avoid and is_free(before, host.strip("[]"))
    return f"{host}:{before if usable else free_port(avoid)}"
