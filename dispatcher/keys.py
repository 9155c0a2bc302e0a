"""The key pairs of CurveZMQ: who the dispatcher is, and which managers it lets in.

    HOME/endpoint/<site>/curve/
        dispatcher.key          public key of the dispatcher: managers need it
        dispatcher.secret       its secret key                                     (mode 0600)
        managers/<name>.key     public key of a manager that may connect
        <name>.secret           that manager's secret key, where the manager runs  (mode 0600)

Keys are 40 characters of Z85. On one machine both sides share the folder and whoever starts first makes the pairs.
A manager elsewhere gets dispatcher.key copied to it, makes its own pair (`manager_keys`), and its public key is
copied into managers/ here; taking it out again locks the manager out within a second.

Not here: the ZAP handler that asks `allowed` (`upon.dispatcher.router`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from upon.errors import ConfigError

KEY_LENGTH = 40


class KeyPair(NamedTuple):
    """A public and a secret key, Z85."""

    public: bytes
    secret: bytes


def dispatcher_keys(curve: Path) -> KeyPair:
    """Return the dispatcher's key pair; make it if there is none.

    Args:
        curve: the folder of the keys, `curve_folder`.

    Raises:
        ConfigError: a key file is damaged or cannot be read.
    """
    return _pair(curve / "dispatcher.key", curve / "dispatcher.secret")


def manager_keys(curve: Path, name: str = "manager") -> KeyPair:
    """Return a manager's key pair, and make it if there is none: its public key is then among the allowed ones.

    Raises:
        ConfigError: a key file is damaged or cannot be read.
    """
    return _pair(curve / "managers" / f"{name}.key", curve / f"{name}.secret")


def dispatcher_public(curve: Path) -> bytes:
    """Return the public key of the dispatcher that a manager connects to.

    Where dispatcher and manager share the folder it is made if the manager is first.

    Raises:
        ConfigError: the file is damaged or cannot be read.
    """
    public = curve / "dispatcher.key"
    return _read(public) if public.exists() else dispatcher_keys(curve).public


def allowed(curve: Path, before: Mapping[bytes, str] = MappingProxyType({})) -> dict[bytes, str]:
    """Return the public keys that may connect, each with its manager's name.

    Damaged files are passed over. What cannot be read now (a file, or the folder) has not gone: its keys stay.

    Args:
        curve: the folder of the keys.
        before: what was allowed until now.
    """
    found: dict[bytes, str] = {}
    try:
        names = sorted(name for name in os.listdir(curve / "managers") if name.endswith(".key") and name[0] != ".")
    except OSError:
        return dict(before)
    for name in names:
        file = curve / "managers" / name
        try:
            found[_checked(file, file.read_bytes())] = file.stem
        except FileNotFoundError:
            continue
        except OSError:
            found |= {key: owner for key, owner in before.items() if owner == file.stem}
        except ConfigError:
            continue
    return found


def changed(curve: Path) -> int:
    """Return when a manager's key came or went, ns since the epoch; 0: there is no folder."""
    try:
        return (curve / "managers").stat().st_mtime_ns
    except OSError:
        return 0


def curve_folder(endpoint: Path) -> Path:
    """Return where the keys of an endpoint are (`Home.endpoint(site)`)."""
    return endpoint / "curve"


def _pair(public: Path, secret: Path) -> KeyPair:
    import zmq

    if not secret.exists():
        for folder in (secret.parent, public.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _, made = zmq.curve_keypair()
        _create(secret, made)
    kept = _read(secret)
    derived = zmq.curve_public(kept)
    if not public.exists() or _read(public) != derived:
        _replace(public, derived)
    return KeyPair(derived, kept)


def _create(file: Path, key: bytes) -> None:
    """Write a secret key unless somebody else just did: the first one holds."""
    temporary = _private(file, key)
    try:
        os.link(temporary, file)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _replace(file: Path, key: bytes) -> None:
    _private(file, key).replace(file)


def _private(file: Path, key: bytes) -> Path:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(key + b"\n")
    return temporary


def _read(file: Path) -> bytes:
    try:
        return _checked(file, file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


def _checked(file: Path, text: bytes) -> bytes:
    key = text.strip()
    if len(key) != KEY_LENGTH or not key.isascii():
        raise ConfigError(f"{file}: not a key of {KEY_LENGTH} characters; remove it, and a new pair is made")
    return key
