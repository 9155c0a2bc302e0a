"""EPICS Channel Access: monitors of process variables become events.

    upon.epics.value          a value changed by more than its deadband
    upon.epics.alarm          the alarm severity changed
    upon.epics.connected      the PV answers (again)
    upon.epics.disconnected   it does not: its IOC stopped, the network is cut, or it never answered

    caproto's threads ──readings──▶ inbox (bounded) ──▶ this source's thread ──▶ epics_changes ──▶ event ──▶ Kafka

Guarantees: events of one PV are in order (key: the PV). The id comes from PV, kind, time stamp and value, so what a
monitor repeats is one event, and a clock that is set back makes no two happenings one. A monitor does not repeat the
past: what changed while the source was down, or was still in memory when it was killed, is announced only as far as the
PV's present state differs from the last one that Kafka has. When Kafka is away for so long that the inbox is full, the
oldest readings are dropped; the log says how many, now and in all. Repetitions that were dropped are counted in the log
when the source stops.

Where the IOCs are is said as EPICS says it: EPICS_CA_ADDR_LIST, EPICS_CA_AUTO_ADDR_LIST, EPICS_CA_SERVER_PORT.
The IOC's own deadbands (MDEL, ADEL) apply before ours. Deliberately absent: writing to PVs; the CA repeater (a daemon
that would outlive this process); PV Access.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from upon.events import Event, rfc3339
from upon.instrument_adapters.epics_changes import Change, Channel, Reading
from upon.triggers.source import Context, Duration, Source, SourceConfig, event_id

if TYPE_CHECKING:
    from caproto.threading.client import PV

EPICS_EPOCH = 631_152_000
"""Seconds from the Unix epoch to that of EPICS, 1990-01-01."""
INBOX = 20_000
STOP_WITHIN = 0.5
"""Seconds after which it looks whether it shall stop."""


class PvConfig(BaseModel):
    """A process variable to follow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="name of the process variable")
    deadband: float | None = Field(None, ge=0, description="its own deadband; none: that of the source")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class EpicsConfig(SourceConfig):
    """Options of kind `epics`."""

    pvs: tuple[Annotated[PvConfig, BeforeValidator(_named)], ...] = Field(
        min_length=1, description="process variables: names, or {name, deadband}"
    )
    deadband: float = Field(0.0, ge=0, description="least change of a number that counts, absolute; 0: every change")
    connect: Annotated[Duration, Field(gt=0)] = Field(
        10.0, description="time after which a PV that has not answered since the start counts as disconnected"
    )


@dataclass(frozen=True, slots=True)
class _News:
    """What a thread of caproto heard of a PV: a response, or (None) that it is connected or not."""

    pv: str
    connected: bool
    response: Any
    at: int


class EpicsSource(Source[EpicsConfig]):
    """Announces changes of process variables."""

    Config: ClassVar[type[Any]] = EpicsConfig

    def __init__(self, config: EpicsConfig, context: Context) -> None:
        super().__init__(config, context)
        self._channels = {pv.name: self._channel(pv) for pv in config.pvs}
        self._labels: dict[str, tuple[str, ...]] = {}
        self._units: dict[str, str] = {}
        self._inbox: deque[_News] = deque(maxlen=INBOX)
        self._dropped = self._dropped_in_all = self._repeated = 0
        self._set_back: set[str] = set()
        self._news = threading.Condition()

    def run(self) -> None:
        from caproto.threading.client import Context as ClientContext

        client = ClientContext()
        try:
            pvs = client.get_pvs(*self._channels, connection_state_callback=self._on_connection)
            monitored: dict[str, Any] = {}
            silent_after = time.monotonic() + self.config.connect
            self.context.log.info("monitoring", action="watch", pvs=len(pvs))
            while not self.context.stopping.is_set():
                for news in self._take():
                    if news.connected and news.response is None:
                        self._describe(client, news.pv)
                        if news.pv not in monitored:
                            monitored[news.pv] = self._monitor(pvs, news.pv)
                    self._take_in(news)
                if silent_after and (len(monitored) == len(self._channels) or time.monotonic() >= silent_after):
                    self._note_silent(monitored)
                    self.context.ready()
                    silent_after = 0.0
        finally:
            client.disconnect(wait=False)
            self.context.log.info(
                "monitoring ends", action="stop", repeated=self._repeated, dropped=self._dropped_in_all
            )

    # ── in caproto's threads ──────────────────────────────────────────────────────────────────────────────────────

    def _on_connection(self, pv: PV, state: str) -> None:
        self._put(_News(pv.name, state == "connected", None, time.time_ns()))

    def _on_reading(self, subscription: Any, response: Any) -> None:
        self._put(_News(subscription.pv.name, True, response, time.time_ns()))

    def _put(self, news: _News) -> None:
        with self._news:
            self._dropped += len(self._inbox) == INBOX
            self._inbox.append(news)
            self._news.notify()

    # ── in the source's thread ────────────────────────────────────────────────────────────────────────────────────

    def _take(self) -> list[_News]:
        with self._news:
            if not self._inbox:
                self._news.wait(STOP_WITHIN)
            news, dropped = list(self._inbox), self._dropped
            self._inbox.clear()
            self._dropped = 0
        if dropped:
            self._dropped_in_all += dropped
            self.context.log.error(
                "readings were dropped: Kafka is too slow",
                action="drop", readings=dropped, in_all=self._dropped_in_all,
            )  # fmt: skip
        return news

    def _monitor(self, pvs: list[PV], name: str) -> Any:
        pv = next(pv for pv in pvs if pv.name == name)
        subscription = pv.subscribe(data_type="time")
        subscription.add_callback(self._on_reading)
        return subscription

    def _describe(self, client: Any, name: str) -> None:
        """Ask once for what does not change with each reading: the labels of an enumeration, the unit."""
        from caproto import CaprotoError

        (pv,) = client.get_pvs(name)
        try:
            found = pv.read(data_type="control", timeout=2).metadata
        except (CaprotoError, TimeoutError):
            return  # gone again: its next connection comes here as well
        if labels := getattr(found, "enum_strings", None):
            self._labels[name] = tuple(_text(label) for label in labels)
        if unit := _text(getattr(found, "units", b"")):
            self._units[name] = unit

    def _take_in(self, news: _News) -> None:
        channel = self._channels[news.pv]
        if news.response is None:
            changes = channel.connection(news.connected, news.at)
        else:
            reading = self._read(news)
            self._repeated += channel.repeats(reading)
            self._note_clock(channel, reading)
            changes = channel.connection(True, news.at) + channel.reading(reading)
        for index, change in enumerate(changes):
            self._announce(channel, change, last=index == len(changes) - 1)

    def _read(self, news: _News) -> Reading:
        metadata = news.response.metadata
        stamp = metadata.stamp
        at = (EPICS_EPOCH + stamp.secondsSinceEpoch) * 1_000_000_000 + stamp.nanoSeconds
        status = getattr(metadata.status, "name", str(metadata.status))
        value = plain(news.response.data, self._labels.get(news.pv))
        # An IOC without a clock stamps nothing; then its readings have the time of their arrival.
        return Reading(value, int(metadata.severity), status, at if stamp.secondsSinceEpoch else news.at)

    def _note_clock(self, channel: Channel, reading: Reading) -> None:
        """Say once of a PV that its clock was set back: times of its events are then not in order."""
        if reading.at < channel.at and channel.name not in self._set_back:
            self._set_back.add(channel.name)
            self.context.log.warning(
                "a process variable's clock was set back; its events keep its times",
                action="clock", pv=channel.name, seconds=round((channel.at - reading.at) / 1e9, 3),
            )  # fmt: skip

    def _note_silent(self, monitored: dict[str, Any]) -> None:
        silent = [name for name in self._channels if name not in monitored]
        if not silent:
            return
        self.context.log.warning(
            "process variables do not answer; is EPICS_CA_ADDR_LIST right?", action="wait", pvs=silent[:20]
        )
        for name in silent:
            for change in self._channels[name].connection(False, time.time_ns()):
                self._announce(self._channels[name], change, last=True)

    def _announce(self, channel: Channel, change: Change, *, last: bool) -> None:
        uri = f"upon:epics:{channel.name}"
        data = dict(change.data)
        if channel.name in self._units:
            data["units"] = self._units[channel.name]
        event = Event(
            type=f"upon.epics.{change.kind}",
            source=uri,
            subject=channel.name,
            id=event_id(uri, change.kind, str(change.at), repr(change.data.get("value"))),
            time=rfc3339(change.at),
            data=data,
        )
        state = channel.saved()
        self.context.publish(event, (lambda: self.context.checkpoint.set(channel.name, state)) if last else None)

    def _channel(self, pv: PvConfig) -> Channel:
        channel = Channel(pv.name, self.config.deadband if pv.deadband is None else pv.deadband)
        state = self.context.checkpoint.get(pv.name)
        return channel if state is None else channel.restored(state)


def plain(data: Any, labels: tuple[str, ...] | None) -> Any:
    """Return what Channel Access delivered: one element as itself, several as a list, an enumeration's label.

    NaN and infinity stay what they are; an event, being JSON, says null.
    """
    values = [_plain_one(value, labels) for value in (data.tolist() if hasattr(data, "tolist") else data)]
    return values[0] if len(values) == 1 else values


def _plain_one(value: Any, labels: tuple[str, ...] | None) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    if labels is not None and isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    return value


def _text(value: Any) -> str:
    return value.rstrip(b"\x00").decode("latin-1") if isinstance(value, bytes) else str(value)
