"""Many managers in one process, each with a connection of its own, that answer at once: what a dispatcher sees of a
supercomputer, without its workers.

    python -m benchmarks.simulated HOME SITE ADDRESS MANAGERS SLOTS

Sockets, keys and frames are real. Prints `ready` when every manager is known, and then, a few times a second, how many
results the dispatcher has said are stored.
"""

from __future__ import annotations

import sys
import time

import zmq

from upon.config import Settings
from upon.dispatcher import protocol, wire
from upon.dispatcher.keys import curve_folder, dispatcher_public, manager_keys
from upon.dispatcher.protocol import BEAT, Outcome

SAY_EVERY = 0.2
"""Seconds between two words on what is stored."""


class Manager:
    """One of them."""

    def __init__(self, number: int, slots: int, socket: zmq.Socket[bytes]) -> None:
        self.id, self.slots, self.socket = f"sim-{number}", slots, socket
        self.epoch, self.known, self.stored = 0, False, 0
        self._name = self.id.encode()

    def say(self, message: protocol.FromManager) -> None:
        self.socket.send_multipart([self._name, *wire.pack(message, self.epoch)])

    def ready(self) -> None:
        self.say(protocol.Ready(self.id, "simulated", 1, (), self.slots, "3.11"))

    def hear(self) -> None:
        """Take what there is, and answer."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.epoch = max(self.epoch, wire.epoch_of(frames))
            match wire.from_dispatcher(frames):
                case protocol.Tasks() as tasks:
                    now = time.time_ns()
                    pairs = zip(tasks.ids, tasks.attempts, strict=True)
                    done = tuple(Outcome(*pair, "succeeded", b"m\xc0", started=now, finished=now) for pair in pairs)
                    self.say(protocol.Results(done))
                case protocol.Stored(attempts):
                    self.stored += len(attempts)
                case protocol.Beat(known=False):
                    self.ready()
                case protocol.Beat():
                    self.known = True


def main() -> None:
    home, site, address, count, slots = sys.argv[1:]
    settings = Settings.load(home, site=site)
    curve = curve_folder(settings.places.endpoint(site))
    keys, server = manager_keys(curve), dispatcher_public(curve)
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 8192)
    poller, managers = zmq.Poller(), {}
    for number in range(int(count)):
        socket = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.CURVE_SERVERKEY, server),
            (zmq.CURVE_PUBLICKEY, keys.public),
            (zmq.CURVE_SECRETKEY, keys.secret),
            (zmq.SNDHWM, 0),
            (zmq.RCVHWM, 0),
            (zmq.LINGER, 0),
        ):
            socket.setsockopt(option, value)
        socket.connect(address)
        poller.register(socket, zmq.POLLIN)
        managers[socket] = Manager(number, int(slots), socket)
        managers[socket].ready()
    every, beats = list(managers.values()), 0
    began, said_at, said, all_known = time.monotonic(), 0.0, 0, False
    while True:
        for socket, _ in poller.poll(100):
            managers[socket].hear()
        now = time.monotonic()
        while beats < int((now - began) / BEAT * len(every)):  # spread over the second, as those of real ones are
            every[beats % len(every)].say(protocol.Heartbeat(0))
            beats += 1
        if not all_known and all(one.known for one in every):
            all_known = True
            print("ready", flush=True)
        if now - said_at > SAY_EVERY and (stored := sum(one.stored for one in every)) != said:
            said_at, said = now, stored
            print(stored, flush=True)


if __name__ == "__main__":
    main()
