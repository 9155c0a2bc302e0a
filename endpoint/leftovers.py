"""What a task leaves behind in its worker: put back, or the worker is to be replaced. Before the next task.

    after every task      children ended; stdout, stderr, umask, working directory, environment, sys.path put back;
                          threads seen
    with a closer look    everything else in docs/fabric.md's table; after the first call of each function in this
                          worker, after a task of `LONG` s, after every call of a function that once left something,
                          and after every `OFTEN`th task

What can be put back for certain is put back. Anything else retires the worker: a fork of the warm parent is cheap.
The short look takes about 3 µs, the closer one 0.1 ms.
Not here: what a function patches inside modules or caches there (that is what warm workers are for), and files.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal.getsignal makes an enum of each answer
import _thread
import builtins
import contextlib
import gc
import locale
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from upon.endpoint.descendants import end_children, open_children

LONG = 0.005
"""Seconds: after a task that ran so long a closer look costs nothing that counts."""
OFTEN = 256
MAX_KNOWN = 10_000
"""Functions of which is remembered that they were looked at closely."""
PATIENCE = 1.0
"""Seconds in which children have to be gone."""
THREAD_PATIENCE = 0.02
"""Seconds that a thread has which is about to end when its function returns."""

_LIMITS = tuple(number for name, number in sorted(vars(resource).items()) if name.startswith("RLIMIT_"))
_SIGNALS = tuple(sorted(signal.valid_signals()))
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Leftovers:
    """What this process is like before its first task, and its way back there.

    Args:
        output: file of the worker's stdout and stderr, where descriptors 1 and 2 belong.
        reserve: moves a descriptor to a number that functions hardly touch.
        streams: puts back how `sys.stdout` and `sys.stderr` are set, and tells whether that was changed.
    """

    def __init__(
        self,
        output: int,
        reserve: Callable[[int], int] = lambda descriptor: descriptor,
        streams: Callable[[], bool] = lambda: False,
    ) -> None:
        self._output, self._streams = output, streams
        self._tasks = 0
        self._suspects: set[str] = set()  # code that has left something once
        self._known: set[str] = set()  # code that was looked at closely
        children = open_children()
        self._children = reserve(children) if children >= 0 else -1
        self._folder = reserve(os.open(".", os.O_RDONLY | os.O_CLOEXEC))
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._environ, self._variables = os.environ, dict(os.environ._data)  # type: ignore[attr-defined]
        self._path = list(sys.path)
        self._builtins = dict(vars(builtins))
        self._modules = dict(sys.modules)
        self._handlers = {number: _signal.getsignal(number) for number in _SIGNALS}
        self._limits = self._limits_now()
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)
        self._locale = locale.setlocale(locale.LC_ALL)
        self._settings = self._settings_now()
        self._random = random.getstate()
        self._numpy: Any = None
        self._descriptors = self._descriptors_now()

    def clear(self, code: str, took: float) -> str:
        """Put things back after a task.

        Args:
            code: hash of its function.
            took: s that it ran.

        Returns:
            Why the worker has to be replaced; empty: it is as it was.
        """
        try:
            threads = self._short()
            self._tasks += 1
            if threads or took >= LONG or code not in self._known or code in self._suspects or self._tasks % OFTEN == 0:
                self._remember(code)
                if self._close():
                    self._suspects.add(code)
                return self._worst()
        except BaseException as error:
            return f"left what could not be put back: {type(error).__name__}: {error}"
        return ""

    def _remember(self, code: str) -> None:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
            self._suspects.clear()
        self._known.add(code)

    # ------------------------------------------------------------------------------------------ after every task

    def _short(self) -> bool:
        """Put back what is cheap to look at; tell whether there are threads."""
        if self._children < 0 or os.pread(self._children, 1, 0):
            end_children(PATIENCE)
        os.umask(self._umask)
        os.fchdir(self._folder)
        os.dup2(self._output, 1)  # a file of the next task that gets a free number 1 would get what that one prints
        os.dup2(self._output, 2)
        if os.environ is not self._environ or self._environ._data != self._variables:  # type: ignore[attr-defined]
            self._put_environment_back()
        if sys.path != self._path:
            sys.path[:] = self._path
        return bool(_thread._count())

    def _put_environment_back(self) -> None:
        os.environ = self._environ  # noqa: B003
        decode = self._environ.decodevalue  # type: ignore[attr-defined]
        wanted = {decode(name): decode(value) for name, value in self._variables.items()}
        for name in self._environ.keys() - wanted.keys():
            del self._environ[name]
        self._environ.update(wanted)
        time.tzset()

    # ---------------------------------------------------------------------------------------------- a closer look

    def _close(self) -> bool:
        """Put back the rest; tell whether there was anything."""
        changed = self._streams() | self._signals() | self._descriptors_back() | self._interpreter() | self._chance()
        for timer in _TIMERS:
            changed |= signal.setitimer(timer, 0) != (0.0, 0.0)
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
            changed = True
        return changed

    def _signals(self) -> bool:
        changed = False
        for number, handler in self._handlers.items():
            if _signal.getsignal(number) != handler:
                signal.signal(number, handler)
                changed = True
        if signal.pthread_sigmask(signal.SIG_SETMASK, ()):
            changed = True
        return changed

    @staticmethod
    def _descriptors_back() -> bool:
        try:
            os.fstat(0)
        except OSError:
            null = os.open(os.devnull, os.O_RDONLY)  # the lowest free one: 0
            if null:
                os.dup2(null, 0)
                os.close(null)
            return True
        return False

    def _settings_now(self) -> tuple[Any, ...]:
        return (
            sys.getrecursionlimit(),
            sys.getswitchinterval(),
            socket.getdefaulttimeout(),
            gc.isenabled(),
            gc.get_threshold(),
            sys.gettrace(),
            sys.getprofile(),
            sys.excepthook,
            threading.excepthook,
        )

    def _interpreter(self) -> bool:
        if self._settings_now() == self._settings:
            return False
        depth, interval, wait, collecting, threshold, trace, profile, hook, thread_hook = self._settings
        sys.setrecursionlimit(depth)
        sys.setswitchinterval(interval)
        socket.setdefaulttimeout(wait)
        (gc.enable if collecting else gc.disable)()
        gc.set_threshold(*threshold)
        sys.settrace(trace)
        sys.setprofile(profile)
        sys.excepthook, threading.excepthook = hook, thread_hook
        return True

    def _chance(self) -> bool:
        """Seed the generators that were used: a seed that one task sets is not for the next."""
        changed = False
        if random.getstate() != self._random:
            random.seed()
            self._random, changed = random.getstate(), True
        numpy = sys.modules.get("numpy.random")
        if numpy is not None:
            with contextlib.suppress(Exception):
                state = numpy.get_state(legacy=False)["state"]
                seen = (state["pos"], state["key"][:4].tobytes())
                if seen != self._numpy:
                    numpy.seed()
                    state = numpy.get_state(legacy=False)["state"]
                    self._numpy, changed = (state["pos"], state["key"][:4].tobytes()), True
        return changed

    # ------------------------------------------------------------------------------------- what replaces a worker

    def _worst(self) -> str:
        """Return why this worker cannot go on."""
        present = vars(builtins)
        if any(present.get(name) is not value for name, value in self._builtins.items()):
            present.update(self._builtins)  # what is still to be said needs them
            return "changed the builtins"
        if name := self._replaced_module():
            sys.modules.update(self._modules)
            return f"replaced the module {name}"
        if not self._no_threads():
            return f"left {_thread._count()} threads running"
        if self._children >= 0 and os.pread(self._children, 1, 0):
            return "left a process that does not end"
        if self._limits_now() != self._limits:
            return "changed a resource limit"
        if os.getpriority(os.PRIO_PROCESS, 0) != self._nice:
            return "changed its priority"
        left = self._descriptors_now() ^ self._descriptors
        if left:
            gc.collect()  # a file in a cycle is as good as closed
            left = self._descriptors_now() ^ self._descriptors
        if left - self._descriptors:
            return f"left {len(left)} files open"
        return "closed descriptors that it had not opened" if left else ""

    def _replaced_module(self) -> str:
        """Return the name of a module that is another one now; imports are no change."""
        modules = sys.modules
        for name, module in self._modules.items():
            if modules.get(name) is not module:
                return name
        if len(modules) != len(self._modules):
            for name in modules.keys() - self._modules.keys():
                if name in sys.stdlib_module_names and getattr(modules[name], "__spec__", None) is None:
                    return name  # made by hand
            self._modules = dict(modules)
        return ""

    @staticmethod
    def _no_threads() -> bool:
        deadline = time.monotonic() + THREAD_PATIENCE
        while _thread._count():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    @staticmethod
    def _limits_now() -> list[tuple[int, int]]:
        return [resource.getrlimit(number) for number in _LIMITS]

    @staticmethod
    def _descriptors_now() -> frozenset[str]:
        try:
            return frozenset(os.listdir("/proc/self/fd" if sys.platform.startswith("linux") else "/dev/fd"))
        except OSError:
            return frozenset()
