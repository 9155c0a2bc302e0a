"""Where the service is and what it wants to see: address and token, from arguments, environment or profile.

Asked again at each connection, for a system that was started anew may have another address.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from upon.config import Settings
from upon.errors import ConfigError, NotAuthenticated, ServiceUnavailable
from upon.store.payloads import Where


@dataclass(frozen=True, slots=True)
class Target:
    """A service as a client finds it.

    Attributes:
        address: such as ``http://127.0.0.1:8700``, no slash at the end.
        token: bearer token; may be empty.
        profile: the file that address and token are looked up in; for messages.
    """

    address: str
    token: str
    profile: Path

    def url(self, path: str) -> str:
        return self.address + path

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def is_local(self) -> bool:
        """Whether the service is on this machine, so that no proxy is in between."""
        host = urlsplit(self.address).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def proxy(self) -> str | None:
        """The proxy that the environment (`https_proxy`, `no_proxy` …) names for this service, if any."""
        parts = urlsplit(self.address)
        if self.is_local or proxy_bypass(parts.hostname or ""):
            return None
        return getproxies().get(parts.scheme)

    def unavailable(self, reason: object) -> ServiceUnavailable:
        """Return the error for a service that does not answer."""
        return ServiceUnavailable(
            f"no Upon service answers at {self.address} ({reason}): start it with `upon up`, "
            f"or correct the address in {self.profile} or UPON_SERVICE"
        )

    def not_authenticated(self, said: str = "") -> NotAuthenticated:
        """Return the error for a token that the service does not take."""
        wrong = "did not accept the token" if self.token else "wants a token, and there is none"
        return NotAuthenticated(
            f"the service at {self.address} {wrong}{f' ({said})' if said else ''}: "
            f"`upon up` writes it into {self.profile}; UPON_TOKEN or token=… override it"
        )


@dataclass(frozen=True, slots=True)
class Finder:
    """What a user said about the service; call it to look the rest up.

    Args:
        home: the home folder; default UPON_HOME, else the platform's user data folder.
        service: address; default UPON_SERVICE, else the profile's.
        token: bearer token; default UPON_TOKEN, else the profile's.
    """

    home: str | os.PathLike[str] | None = None
    service: str | None = None
    token: str | None = None

    def __call__(self) -> Target:
        """Return the service as it is known now.

        Raises:
            ServiceUnavailable: no address is known.
            ConfigError: the profile cannot be read, or the address is no URL.
        """
        settings = Settings.load(self.home, service=self.service, token=self.token)
        profile = settings.places.profile
        if not settings.service:
            raise ServiceUnavailable(
                f"no service address: {profile} {'names none' if profile.exists() else 'is not there'}; "
                "start a system with `upon up`, or name one with --home, UPON_HOME or UPON_SERVICE"
            )
        address = settings.service.rstrip("/")
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"service address {settings.service!r}: write http://HOST:PORT or https://HOST[:PORT]")
        return Target(address, settings.token, profile)

    def where(self) -> Where:
        """Return where large arguments and results are, as it is known now. Raises ConfigError."""
        settings = Settings.load(self.home)
        return Where(settings.store_folder, settings.inline_limit)


def describe(error: BaseException) -> str:
    """Return why a connection failed, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = getattr(error, "os_error", error)  # aiohttp wraps it
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
        return os.strerror(cause.errno)
    return str(cause) or type(error).__name__
