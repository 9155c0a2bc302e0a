"""Settings: where the home folder is, what the profile says, what the environment overrides.

One folder, UPON_HOME, holds the profile that CLI and SDK read and all data of an embedded system:

    profile.json          service address, token, Kafka address, prefix, site        (mode 0600)
    kafka/ service/ endpoint/ sources/    each part's data
    store/                large arguments and results
    logs/<part>.log       what each part logged
    run/                  what runs now: pids, lock; rewritten at each start

A value is looked for in this order: argument, environment (`UPON_SERVICE`, `UPON_TOKEN`, `UPON_KAFKA` …),
profile, default. Nothing here opens a connection.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from upon.durations import parse_duration
from upon.errors import ConfigError
from upon.machine import PRIVATE
from upon.sizes import parse_size
from upon.topics import Topics, TopicSpec

PROFILE_FIELDS = ("service", "token", "kafka", "prefix", "site", "dispatcher", "sources", "store")
FOLDERS = ("kafka", "service", "streams", "endpoint", "sources", "store", "logs", "run")
"""Each part's folder in the home, the large payloads, the logs, and what runs."""
SECRETS = ("token", "database")
"""Settings whose value no message shows."""


class Home:
    """The one folder of a system, and the places in it.

    Args:
        path: the folder; default UPON_HOME, else the user data folder of this platform.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        chosen = path or os.environ.get("UPON_HOME") or platformdirs.user_data_path("upon")
        self.path = Path(chosen).expanduser().absolute()

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    @property
    def profile(self) -> Path:
        return self.path / "profile.json"

    @property
    def kafka(self) -> Path:
        return self.path / "kafka"

    @property
    def service(self) -> Path:
        return self.path / "service"

    @property
    def sources(self) -> Path:
        return self.path / "sources"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def run(self) -> Path:
        return self.path / "run"

    def endpoint(self, site: str) -> Path:
        return self.path / "endpoint" / site

    def read_profile(self) -> dict[str, Any]:
        """Return the profile, empty if there is none.

        Raises:
            ConfigError: it is there and cannot be read.
        """
        try:
            text = self.profile.read_text()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"{self.profile}: cannot be read: {error.strerror}") from error
        try:
            profile = json.loads(text)
            if not isinstance(profile, dict):
                raise ValueError("not a JSON object")
        except ValueError as error:
            raise ConfigError(f"{self.profile}: {error}; correct it, or remove it and run `upon up`") from error
        return profile

    def make(self) -> list[Path]:
        """Make the folder, private to its owner; return what was open to others before and is not any more.

        The folders of the parts are closed each, for they may stand in a folder that somebody opens again.

        Raises:
            ConfigError: it cannot be made, or not be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
            if not os.access(self.path, os.W_OK | os.X_OK):
                read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
                number = errno.EROFS if read_only else errno.EACCES
                raise OSError(number, os.strerror(number))
        except OSError as error:
            raise ConfigError(
                f"the home {self.path} cannot be {'written' if self.path.is_dir() else 'made'}: {error.strerror}; "
                "correct its owner and modes, or choose another with --home DIR or UPON_HOME"
            ) from error
        return [place for place in (self.path, *(self.path / name for name in FOLDERS)) if _closed(place)]

    def write_profile(self, **values: str) -> None:
        """Set values in the profile; the file is replaced whole, readable by its owner alone."""
        profile = {**self.read_profile(), **values}
        self.path.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        write_private(self.profile, json.dumps(profile, indent=2) + "\n")


def _closed(place: Path) -> bool:
    """Take a folder's rights from everybody but its owner; return whether anybody had one."""
    try:
        mode = stat.S_IMODE(place.stat().st_mode)
        if not mode & 0o077:
            return False
        place.chmod(mode & PRIVATE)
    except OSError:  # not there; or not ours, and then its owner has chosen its modes
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, mode 0600, so that a reader sees the old or the new one whole.

    Raises:
        OSError: it could not be written; the old one stands, and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _hours(seconds: float) -> float:
    """Refuse less than 8 hours: the SDK registers anew what it uses once in an hour, which has to fit in well."""
    if 0 < seconds < 8 * 3600:
        raise ValueError("at least 8h, or 0 for good")
    return seconds


class Settings(BaseSettings):
    """All settings of all parts. Each is an environment variable, `UPON_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="UPON_", extra="ignore", arbitrary_types_allowed=True)

    home: Path = Field(default_factory=lambda: Home().path, description="the one folder of this system")
    service: str = Field("", description="the service's address, such as http://127.0.0.1:8700")
    token: str = Field("", description="bearer token for the service")
    kafka: str = Field("", description="Kafka's bootstrap address, HOST:PORT[,HOST:PORT…]")
    prefix: str = Field("upon", description="first part of every topic's name")
    site: str = Field("local", description="the site that a dispatcher and its managers serve")
    dispatcher: str = Field(
        "",
        description="where the dispatcher listens for managers, tcp://HOST:PORT; a manager may name several",
    )
    listen: str = Field("127.0.0.1:0", description="where the service listens, HOST:PORT; port 0 = any free one")
    database: str = Field("", description="SQLAlchemy URL of the task store; default SQLite in the home")
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="worker processes of a manager")
    memory: Annotated[int, BeforeValidator(parse_size)] = Field(
        0, ge=0, description="memory that a manager's tasks may ask for together, such as 64GB; default: what there is"
    )
    accelerators: str = Field(
        "", description="accelerators that tasks may ask for, by comma, such as 0,1; default: those found; none = none"
    )
    grace: Annotated[float, BeforeValidator(parse_duration)] = Field(
        30.0,
        description="how long a manager that is told to stop (SIGTERM) lets tasks run on, such as 10m; 0 = not at all",
    )
    worker_environment: str = Field(
        "", description="environment variables that functions see beside the usual ones: names or patterns, by comma"
    )
    task_timeout: Annotated[float, BeforeValidator(parse_duration)] = Field(
        0.0, description="how long a task may run whose rule or caller names no timeout, such as 30m; 0 = without end"
    )
    memo_entries: int = Field(
        100_000, ge=0, description="results that a site may give again for the same call (memoize), at most; 0 = none"
    )
    memo_bytes: Annotated[int, BeforeValidator(parse_size)] = Field(
        256 * 2**20, ge=0, description="bytes of them, at most, such as 1GB"
    )
    memo_age: Annotated[float, BeforeValidator(parse_duration)] = Field(
        86400.0, ge=0, description="how long one is given again, such as 12h; 0 = as long as its dispatcher runs"
    )
    chain_limit: int = Field(
        8, ge=1, description="how often a rule may fire in one chain of events and tasks before it is stopped"
    )
    expression_budget: Annotated[float, BeforeValidator(parse_duration)] = Field(
        0.1, gt=0, description="CPU time that one expression of a rule may take for one event"
    )
    sources: str = Field("", description="YAML file that names the event sources to run")
    keep_tasks: Annotated[float, BeforeValidator(parse_duration)] = Field(
        30 * 86400.0, description="how long ended tasks stay in the task store, such as 30d; 0 = for ever"
    )
    keep_tasks_count: int = Field(1_000_000, ge=0, description="how many tasks stay there at most; 0 = all")
    store: str = Field(
        "", description="folder for large arguments and results, the same for all machines; default `store` in the home"
    )
    inline_limit: int = Field(
        2**18, ge=0, description="bytes of arguments or of a result that travel in records; more go through the store"
    )
    keep_payloads: Annotated[float, BeforeValidator(parse_duration)] = Field(
        7 * 86400.0,
        description="how long the store keeps results of ended tasks, and arguments of failed ones; 0 = as the task",
    )
    keep_payloads_bytes: int = Field(
        64 * 2**30, ge=0, description="bytes in the store past which those of tasks that ended first go; 0 = no bound"
    )
    keep_deadletters: Annotated[float, BeforeValidator(parse_duration)] = Field(
        90 * 86400.0, description="how long dead letters stay there; 0 = for ever"
    )
    keep_deadletters_count: int = Field(100_000, ge=0, description="how many dead letters stay there; 0 = all")
    keep_sites: Annotated[float, BeforeValidator(parse_duration)] = Field(
        30 * 86400.0, description="how long a site that is not heard of any more is listed; 0 = for ever"
    )
    keep_code: Annotated[float, BeforeValidator(parse_duration), AfterValidator(_hours)] = Field(
        14 * 86400.0,
        description="how long code is kept that nobody uses and no registered function has, such as 30d; "
        "at least 8h, 0 = for good",
    )
    keep_kafka: Annotated[float, BeforeValidator(parse_duration)] = Field(
        7 * 86400.0, description="how long Kafka keeps events, invocations, results, dead letters; 0 = for ever"
    )
    keep_kafka_bytes: int = Field(
        8 * 2**30, ge=0, description="how many bytes of them Kafka keeps in each partition at most; 0 = all"
    )
    partitions: int = Field(4, ge=1, description="partitions of new events, results and invocations topics")
    replication: int = Field(1, ge=1, description="replication factor of new topics")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level logged")

    @classmethod
    def load(cls, home: str | os.PathLike[str] | None = None, **values: Any) -> Settings:
        """Return the settings in force.

        Args:
            home: the home folder; default UPON_HOME, else the platform's user data folder.
            values: settings given as arguments; None counts as not given.

        Raises:
            ConfigError: a value is wrong (the message names variable and value), or the profile is unreadable.
        """
        place = Home(home)
        given = {name: value for name, value in values.items() if value is not None}
        profile = place.read_profile()
        try:
            return cls(home=place.path, _profile=profile, **given)  # type: ignore[call-arg]
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            value = "" if name in SECRETS else f", not {first['input']!r}"
            raise ConfigError(
                f"setting {name} (environment UPON_{name.upper()} or {place.profile}): {first['msg']}{value}"
            ) from (None if name in SECRETS else error)

    def __init__(self, _profile: dict[str, Any] | None = None, **values: Any) -> None:
        super().__init__(**values, _profile=_profile or {})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = dict(init_settings())
        profile = given.pop("_profile", {})
        return (lambda: given, env_settings, lambda: {k: profile[k] for k in PROFILE_FIELDS if k in profile})  # type: ignore[return-value]

    @property
    def topics(self) -> Topics:
        return Topics(self.prefix)

    @property
    def places(self) -> Home:
        return Home(self.home)

    @property
    def store_folder(self) -> Path:
        """Where large arguments and results are."""
        return Path(self.store).expanduser().absolute() if self.store else self.home / "store"

    def spec_of(self, topic: str) -> TopicSpec | None:
        """Return how a topic of this deployment is made; None: it is none."""
        return self.topics.spec_of(topic, self.partitions)

    @property
    def remembered(self) -> dict[str, str]:
        """What a start keeps in the profile for the next one, and for clients, beside addresses and token."""
        store = str(self.store_folder) if self.store else ""
        return {"prefix": self.prefix, "site": self.site, "sources": self.sources, "store": store}

    def need_kafka(self) -> str:
        """Return Kafka's address.

        Raises:
            ConfigError: none is known.
        """
        if not self.kafka:
            raise ConfigError(
                f"no Kafka address in {self.places.profile}: start a system with `upon up`, or set UPON_KAFKA=HOST:PORT"
            )
        return self.kafka
