"""The Globus source: `upon.globus.transfer.succeeded` or `.failed`, once for each transfer task that ended.

    every `poll`: what ended since `until`, less `overlap`? ──▶ not seen before ──▶ event ──▶ Kafka ──▶ checkpoint

Guarantees:
  - It goes by a task's *status* alone, which is final once SUCCEEDED or FAILED. (A task's own event list repeats
    itself and is not asked.)
  - The checkpoint holds the newest completion time that Kafka has everything up to, and the tasks seen within the
    overlap before it; so neither a kill -9 nor a task that Globus lists late makes a task lost, and one that is read
    again has the same event id.
  - Times are compared as Globus writes them, never with this machine's clock, except at the very first start.
  - Temporary faults (503, timeouts) are tried again by the SDK a few times, then by the runner, with pauses.

What it sees is what the application's identity sees: its own tasks. Not here: starting transfers, and following one
while it runs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from upon.errors import ConfigError, SourceError
from upon.events import Event
from upon.triggers.source import Context, Duration, Source, SourceConfig, event_id

if TYPE_CHECKING:
    from globus_sdk import GlobusError, TransferClient

TYPES = {"SUCCEEDED": "upon.globus.transfer.succeeded", "FAILED": "upon.globus.transfer.failed"}
URI = "upon:globus:transfer"
FIRST, UNTIL = "first", "until"
SEEN = "task:"
PAGE = 100
WINDOW = 1000
"""Globus lists at most so many tasks for one question; more are asked for from the last one's time on."""
RETRIES, LONGEST_RETRY_PAUSE = 4, 2.0
FACTS = (
    "task_id",
    "label",
    "status",
    "nice_status",
    "source_endpoint_id",
    "source_endpoint_display_name",
    "destination_endpoint_id",
    "destination_endpoint_display_name",
    "bytes_transferred",
    "files",
    "files_transferred",
    "files_skipped",
    "directories",
    "faults",
    "request_time",
    "completion_time",
    "owner_id",
)
"""What an event says of its task, under the names of the Globus Transfer API."""


class GlobusConfig(SourceConfig):
    """Options of kind `globus`."""

    client_id: str = Field(description="id of the confidential app whose transfers are followed")
    secret_env: str = Field(
        "UPON_GLOBUS_CLIENT_SECRET", description="environment variable that holds the app's secret; never in the file"
    )
    poll: Annotated[Duration, Field(gt=0)] = Field(30.0, description="time between questions to Globus")
    overlap: Annotated[Duration, Field(ge=0)] = Field(
        600.0, description="how far before the newest task each question reaches back, for tasks that are listed late"
    )
    since: Annotated[Duration, Field(ge=0)] = Field(
        0.0, description="how far back the very first start looks; 0: only tasks that end from then on"
    )
    files: int = Field(100, ge=0, le=10_000, description="how many transferred files an event lists at most")


class GlobusSource(Source[GlobusConfig]):
    """Announces the transfers of one Globus app."""

    Config: ClassVar[type[Any]] = GlobusConfig

    def __init__(self, config: GlobusConfig, context: Context) -> None:
        super().__init__(config, context)
        self._seen = {key.removeprefix(SEEN): at for key, at in context.checkpoint.items() if key.startswith(SEEN)}
        self._unsafe = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        from globus_sdk import GlobusError

        try:
            client = self._client()
            until = self._begin()
            told = False
            while not self.context.stopping.is_set():
                newest = self._ask(client, until)
                if not told:
                    self.context.log.info("following transfers", action="watch", client_id=self.config.client_id)
                    self.context.ready()
                    told = True
                if self.context.stopping.wait(self.config.poll):
                    return
                until = self._advance(until, newest)
        except GlobusError as error:
            raise SourceError(_story(error)) from error

    # ── the steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _client(self) -> TransferClient:
        from globus_sdk import ClientApp, GlobusAppConfig, TransferClient
        from globus_sdk.transport import RetryConfig

        secret = os.environ.get(self.config.secret_env)
        if not secret:
            raise ConfigError(
                f"source {self.config.name!r}: the environment variable {self.config.secret_env} (secret_env) is not "
                "set; it holds the secret of the Globus app"
            )
        app = ClientApp(
            "upon",
            client_id=self.config.client_id,
            client_secret=secret,
            config=GlobusAppConfig(token_storage="memory"),
        )
        return TransferClient(
            app=app, retry_config=RetryConfig(max_retries=RETRIES, max_sleep=LONGEST_RETRY_PAUSE, backoff=self._pause)
        )

    def _pause(self, attempt: Any) -> float:
        """Wait before a request is tried again, in a way that a stop interrupts; the SDK then need not sleep."""
        asked = attempt.backoff if attempt.backoff is not None else 0.25 * 2**attempt.attempt
        self.context.stopping.wait(min(asked, LONGEST_RETRY_PAUSE))
        return 0.0

    def _begin(self) -> str:
        until = self.context.checkpoint.get(UNTIL)
        if until is None:
            until = _text(datetime.now(UTC) - timedelta(seconds=self.config.since))
            self.context.checkpoint.set(FIRST, until)
            self.context.checkpoint.set(UNTIL, until)
        return str(until)

    def _ask(self, client: TransferClient, until: str) -> str:
        """Announce every task that ended and was not seen; return the newest completion time there is."""
        newest = until
        for task in self._ended(client, self._from(until)):
            completed = str(task["completion_time"])
            newest = max(newest, completed, key=_time)
            if task["task_id"] not in self._seen:
                self._seen[task["task_id"]] = completed
                self._announce(client, task, completed)
        return newest

    def _from(self, until: str) -> str:
        """The overlap never reaches back before the very first start: what ended before it was never asked for."""
        first = str(self.context.checkpoint.get(FIRST, until))
        return max(_text(_time(until) - timedelta(seconds=self.config.overlap)), first, key=_time)

    def _advance(self, until: str, newest: str) -> str:
        """Move on to the newest task, but not past one that is not safe yet; forget those before the overlap."""
        with self._lock:
            if self._unsafe or newest == until:
                return until
        self.context.checkpoint.set(UNTIL, newest)
        oldest = _time(newest) - timedelta(seconds=2 * self.config.overlap + 1)
        for task, completed in list(self._seen.items()):
            if _time(completed) < oldest:
                del self._seen[task]
                self.context.checkpoint.delete(SEEN + task)
        return newest

    def _ended(self, client: TransferClient, since: str) -> Iterator[Any]:
        """Yield the transfers that ended since a time, oldest first."""
        before = _text(datetime.now(UTC) + timedelta(days=1))
        while True:
            offset, last = 0, since
            while True:
                page = client.task_list(
                    limit=PAGE,
                    offset=offset,
                    orderby="completion_time ASC",
                    filter={"status": list(TYPES), "completion_time": [since, before]},
                )
                tasks = list(page)
                for task in tasks:
                    last = max(last, str(task["completion_time"]), key=_time)
                    if task.get("type", "TRANSFER") == "TRANSFER" and task["status"] in TYPES:
                        yield task
                offset += len(tasks)
                total = int(page["total"])
                if not tasks or offset >= min(total, WINDOW):
                    break
            if offset >= total:
                return
            if last == since:
                self.context.log.error(
                    "more tasks ended in one second than Globus lists", action="skip", at=last, tasks=total
                )
                return
            since = last

    def _announce(self, client: TransferClient, task: Any, completed: str) -> None:
        files, more = self._files(client, task)
        event = Event(
            type=TYPES[task["status"]],
            source=URI,
            subject=task["task_id"],
            id=event_id(URI, task["task_id"]),
            data={**{name: task.get(name) for name in FACTS}, "transferred": files, "transferred_more": more},
        )
        with self._lock:
            self._unsafe += 1
        task_id = str(task["task_id"])
        self.context.publish(event, lambda: self._safe(task_id, completed))

    def _safe(self, task_id: str, completed: str) -> None:
        self.context.checkpoint.set(SEEN + task_id, completed)
        with self._lock:
            self._unsafe -= 1

    def _files(self, client: TransferClient, task: Any) -> tuple[list[dict[str, str]], bool]:
        """Return the files that a task transferred, as many as are wanted, and whether there are more."""
        files: list[dict[str, str]] = []
        if not self.config.files or not task.get("files_transferred"):
            return files, bool(task.get("files_transferred"))
        for item in client.paginated.task_successful_transfers(task["task_id"]).items():
            if len(files) >= self.config.files:
                return files, True
            files.append({"source": item["source_path"], "destination": item["destination_path"]})
        return files, False


def _story(error: GlobusError) -> str:
    """Say what Globus answered, without the addresses and ids that make each answer another."""
    from globus_sdk import AuthAPIError, GlobusAPIError

    if isinstance(error, AuthAPIError):
        return f"Globus Auth refuses the app: {error.http_status} {error.code}; check client_id and its secret"
    if isinstance(error, GlobusAPIError):
        return f"Globus answers {error.http_status} {error.code}: {error.message}"
    return f"Globus cannot be reached: {type(error).__name__}; is there a network?"


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
