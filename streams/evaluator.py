"""Evaluations that may not end, in processes of their own: killed by the kernel when their budget is spent.

    stream worker ──(expression, event)──▶ evaluator ──fork──▶ one evaluation: CPU timer, memory limit
                  ◀─────(value, or why not)── │ ◀── pipe ──────┘

The evaluator is started with the first such evaluation, ends with the worker, and is started again when it is lost.
Its forks cost about a millisecond; most evaluations are known to be cheap (`upon.streams.costs`) and never come here.

Guarantees: an answer or an `Exceeded` after the budget at the latest, whatever the expression, the native code that
evaluates it, or its memory; an expression that exceeds its budget `STRIKES` times in a row is refused for `PAUSE`
seconds without being tried, so that it does not take the worker's time from the others.
CPU time is what counts: a busy machine fails nothing. Not here: what an evaluation does (`upon.streams.conditions`).
"""

from __future__ import annotations

import marshal
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from upon.errors import InputError
from upon.logs import get_logger

BUDGET = 0.1
"""Seconds of CPU time for one evaluation; `Settings.expression_budget` sets it."""
MEMORY = 1024 * 1024 * 1024
"""Bytes that one evaluation may allocate."""
PATIENCE = 30.0
"""Seconds after which an evaluator that does not answer, for whatever reason, is given up."""
STRIKES = 5
PAUSE = 60.0
_LENGTH = struct.Struct("<Q")
log = get_logger(__name__)

Evaluate = Callable[[str, dict[str, Any]], Callable[[], Any]]
"""(expression, event) → what gives the value, its preparations made; raises InputError."""


class Exceeded(InputError):
    """An evaluation that took more time or memory than it may, or crashed."""


class Evaluator:
    """The way to the evaluator process.

    Attributes:
        budget: s of CPU time for one evaluation.
    """

    def __init__(self, budget: float = BUDGET) -> None:
        self.budget = budget
        self._process: subprocess.Popen[bytes] | None = None
        self._strikes: dict[str, tuple[int, float]] = {}  # by expression: how many in a row, when the last was

    def evaluate(self, source: str, fields: dict[str, Any]) -> tuple[bool, Any]:
        """Return (True, the value) or (False, why there is none).

        Args:
            source: a CEL expression.
            fields: what it sees: an event's attributes, extensions and data, as plain data.

        Raises:
            Exceeded: the budget is spent, or the expression is refused because it was several times in a row.
        """
        count, last = self._strikes.get(source, (0, 0.0))
        if count >= STRIKES and (left := last + PAUSE - time.monotonic()) > 0:
            raise Exceeded(
                f"exceeded its budget {count} times in a row and is not evaluated for another {left:.0f} s; "
                "make it simpler"
            )
        try:
            good, value = self._ask((source, fields, self.budget))
        except Exceeded:
            self._strikes[source] = count + 1, time.monotonic()
            if count + 1 == STRIKES:
                log.error("an expression is suspended", action="evaluate", expression=source, seconds=PAUSE)
            raise
        self._strikes.pop(source, None)
        return good, value

    def close(self) -> None:
        """End the evaluator process, if there is one."""
        if (process := self._process) is not None:
            self._process = None
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _ask(self, question: tuple[str, dict[str, Any], float]) -> tuple[bool, Any]:
        data = marshal.dumps(question)
        for attempt in (1, 2):
            try:
                outcome, value = self._exchange(data)
            except (OSError, EOFError, ValueError):  # it was lost, maybe long ago
                self.close()
                if attempt == 2:
                    raise Exceeded("the process that evaluates it was lost twice") from None
            else:
                if outcome == "exceeded":
                    raise Exceeded(value)
                return outcome == "value", value
        raise AssertionError

    def _exchange(self, data: bytes) -> tuple[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "upon.streams.evaluator"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is the worker's to handle; this one ends with its pipe
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_LENGTH.pack(len(data)) + data)
        process.stdin.flush()
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            raise EOFError
        (length,) = _LENGTH.unpack(_exactly(process.stdout, _LENGTH.size))
        answer: tuple[str, Any] = marshal.loads(_exactly(process.stdout, length))
        return answer


def _exactly(file: Any, count: int) -> bytes:
    data: bytes = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


def serve(evaluate: Evaluate) -> None:
    """Answer questions on stdin until it ends."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed must not come between the answers
    while head := source.read(_LENGTH.size):
        question = marshal.loads(_exactly(source, _LENGTH.unpack(head)[0]))
        answer = _in_a_fork(evaluate, *question)
        sink.write(_LENGTH.pack(len(answer)) + answer)
        sink.flush()


def _in_a_fork(evaluate: Evaluate, source: str, fields: dict[str, Any], budget: float) -> bytes:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(_limited(evaluate, source, fields, budget))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return answer or marshal.dumps(("exceeded", "the process that evaluated it ended without an answer"))
    if os.WTERMSIG(status) == signal.SIGPROF:
        return marshal.dumps(("exceeded", f"took more than {budget:g} s of CPU time for this event"))
    name = signal.Signals(os.WTERMSIG(status)).name
    return marshal.dumps(("exceeded", f"ended the process that evaluated it ({name}): too much memory or nesting"))


def _limited(evaluate: Evaluate, source: str, fields: dict[str, Any], budget: float) -> bytes:
    """Evaluate within limits that the kernel enforces, in this process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        prepared = evaluate(source, fields)  # linear in the event: not the expression's fault
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        signal.setitimer(signal.ITIMER_PROF, budget)
        answer = marshal.dumps(("value", prepared()))
        signal.setitimer(signal.ITIMER_PROF, 0)
    except MemoryError:
        return marshal.dumps(("exceeded", f"took more than {MEMORY // 1024**2:,} MiB of memory for this event"))
    except InputError as error:
        return marshal.dumps(("error", getattr(error, "reason", str(error))))
    except Exception as error:
        return marshal.dumps(("error", f"{type(error).__name__}: {error}"))
    return answer


if __name__ == "__main__":
    from upon.streams.conditions import prepare

    serve(prepare)
