"""What users pick today, beside Upon, in one run on this machine: no-ops per second with single submits, round trip.

    python -m benchmarks.peers [NAME …]      table, JSON and chart, into benchmarks/results/peers.json and peers.svg

Peers are installed by uv into an environment of their own, .venv-peers, newest versions, and stay out of the project's
locks. What does not install or start is left out, with a line that says why. Medians of three; each time every peer has
its turn, started anew and warmed up, two workers each. Peers keep their tasks in memory (Redis here too); Upon has each
task and result in Kafka before it goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import peer
from benchmarks.chart import bars
from benchmarks.figures import percentile
from benchmarks.machine import describe
from benchmarks.system import running_system
from upon import Executor, __version__

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".venv-peers"
RESULTS = ROOT / "benchmarks/results"
RUNS = 3
LIMIT = 300
"""Seconds that one peer may take, started, measured and stopped."""
console = Console(highlight=False, width=140)


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: its name for people, what to install, and the programs that it needs beside."""

    name: str
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    before: tuple[str, ...] = ()  # stands before its command


# Ray listens on every interface whatever it is told: it gets a network of its own.
_ALONE = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
PEERS = {
    "process_pool": Peer("ProcessPoolExecutor"),
    "zeromq": Peer("bare ZeroMQ, coalescing", ("pyzmq",)),
    "parsl_htex": Peer("Parsl HTEX, encrypted", ("parsl",)),
    "dask": Peer("Dask distributed", ("distributed",)),
    "ray": Peer("Ray", ("ray",), ("unshare", "ip"), _ALONE),
    "celery": Peer("Celery on Redis", ("celery[redis]", "dramatiq[redis]"), ("redis-server",)),
    "dramatiq": Peer("Dramatiq on Redis", ("celery[redis]", "dramatiq[redis]"), ("redis-server",)),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians of the runs: no-ops per second, ms of a round trip."""

    name: str
    version: str
    rate: float
    p50: float
    p99: float


class Absent(Exception):
    """A peer cannot be measured here; the text says why."""


def install(one: Peer) -> None:
    """Have a peer in the environment. Raises Absent."""
    for program in one.programs:
        if shutil.which(program) is None:
            raise Absent(f"{program} is not installed here (apt-get install {program})")
    uv = [sys.executable, "-m", "uv"]
    if not ENVIRONMENT.exists():
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)], check=True)
    if one.packages:
        command = [*uv, "pip", "install", "--quiet", "--python", str(ENVIRONMENT / "bin/python"), *one.packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Absent(f"{' and '.join(one.packages)} do not install: {_last_line(done.stderr)}")


def run(key: str) -> Measured:
    """Measure a peer once, in a process of its own. Raises Absent."""
    one = PEERS[key]
    with tempfile.TemporaryDirectory(prefix="upon-peer-", ignore_cleanup_errors=True) as folder:
        command = [*one.before, str(ENVIRONMENT / "bin/python"), str(ROOT / "benchmarks/peer.py"), key, folder]
        environment = os.environ | {"PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}"}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            raise Absent(f"it was not done within {LIMIT} s") from None
    for line in reversed(done.stdout.splitlines()):
        if line.startswith('{"version"'):
            found = json.loads(line)
            return measured(one.name, found["version"], found["rate"], found["times"])
    raise Absent(f"it does not run here: {_last_line(done.stderr)}")


def upon() -> Measured:
    """Measure a system of ours once."""
    with running_system() as system, Executor(home=system.home) as executor:
        wait = lambda found: [one.result(timeout=peer.PATIENCE) for one in found]  # noqa: E731
        rate, times = peer.measure(lambda number: executor.submit(peer.noop, number), wait)
    return measured("Upon", __version__, rate, times)


def measured(name: str, version: str, rate: float, times: list[float]) -> Measured:
    return Measured(name, version, rate, percentile(times, 0.5), percentile(times, 0.99))


def median(runs: list[Measured]) -> Measured:
    of: Callable[[str], float] = lambda field: statistics.median(getattr(one, field) for one in runs)  # noqa: E731
    return Measured(runs[0].name, runs[0].version, of("rate"), of("p50"), of("p99"))


def main() -> None:
    """Measure all, or those that are named, and show them."""
    wanted = [key for key in PEERS if key in sys.argv[1:] or len(sys.argv) == 1]
    turns: dict[str, Callable[[], Measured]] = {"upon": upon}
    for key in wanted:
        try:
            install(PEERS[key])
            turns[key] = lambda key=key: run(key)  # type: ignore[misc]
        except Absent as why:
            console.print(f"left out: {PEERS[key].name}: {why}")
    runs: dict[str, list[Measured]] = {}
    for _ in range(RUNS):
        for key in [*turns]:
            try:
                runs.setdefault(key, []).append(turns[key]())
            except Absent as why:
                console.print(f"left out: {PEERS[key].name}: {why}")
                del turns[key]
    found = sorted((median(runs[key]) for key in turns), key=lambda one: -one.rate)
    machine = describe()
    console.print(machine)
    show(found)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.json").write_text(json.dumps({"machine": machine, "peers": [*map(asdict, found)]}, indent=1))
    rates = [(f"{one.name} {one.version}", one.rate) for one in found]
    (RESULTS / "peers.svg").write_text(bars("No-op tasks per second, single submits, 2 workers", rates))


def show(found: list[Measured]) -> None:
    """Print the table."""
    table = Table("", "version", "no-ops/s", "round trip p50, ms", "p99, ms", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for one in found:
        table.add_row(one.name, one.version, f"{one.rate:,.0f}", f"{one.p50:.2f}", f"{one.p99:.2f}")
    console.print(table)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it says nothing"


if __name__ == "__main__":
    main()
