"""`python -m benchmarks`: measure all and print one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from benchmarks import calling, idling, watchdog_script, watching, whole_way
from benchmarks.figures import Figure, percentile, spread
from benchmarks.machine import describe
from benchmarks.system import System, running_system
from upon import Executor

console = Console(highlight=False, width=140)


def main() -> None:
    """Measure one after the other: the peers first, while no system of ours runs."""
    console.print(describe())
    script_started, script_finished = watchdog_script.measure()
    with watchdog_script.process_pool() as pool:
        pool_trips = calling.round_trips(pool)
        pool_tasks = calling.tasks_per_second(pool)
        pool_items, _ = calling.items_per_second(pool)
    figures: list[Figure] = []
    with running_system() as system:
        figures.append(Figure("cold `upon up` → first result", f"{system.cold_start:.1f} s", "", "≤ 8 s"))
        started, finished, published, hops = watching.measure(system)
        figures += [
            Figure("file complete → started", spread(started), spread(script_started)),
            Figure("file complete → result here", spread(finished), spread(script_finished)),
            Figure("publish → started", spread(published), "", "p50 ≤ 15 ms"),
        ]
        with Executor(home=system.home) as executor:
            trips = calling.round_trips(executor)
            tasks = statistics.median(calling.tasks_per_second(executor) for _ in range(3))
            items, chunk = calling.items_per_second(executor)
        figures += [
            Figure("submit → result", spread(trips), spread(pool_trips), "p50 ≤ 12 ms"),
            Figure("no-op tasks per second", f"{tasks:,.0f}", f"{pool_tasks:,.0f}", "≥ 1,500"),
            Figure("map items per second", f"{items:,.0f} (chunks of {chunk:,})", f"{pool_items:,.0f}", "≥ 500,000"),
        ]
        costs = whole_way.measure(system)
        figures += idle_figures(system)
    show(figures)
    console.print()
    console.print(whole_way.table(costs))
    console.print("\nWhere the time goes, publish → result (ms after publish, p50):")
    for name, times in sorted(hops.items(), key=lambda item: percentile(item[1], 0.5)):
        console.print(f"  {name:<14}{percentile(times, 0.5):8.2f}")


def idle_figures(system: System) -> Iterator[Figure]:
    """Yield a line for each part and one for all."""
    costs, cpu, memory = idling.measure(system)
    for part, (part_cpu, part_memory) in costs.items():
        yield Figure(f"idle: {part}", f"{part_cpu:.1f} % of a core, {part_memory:.0f} MB")
    yield Figure("idle: all parts", f"{cpu:.1f} % of a core, {memory:.0f} MB", "", "≤ 10 %")


def show(figures: list[Figure]) -> None:
    """Print the table."""
    table = Table("what", "Upon", "instead (process pool, watchdog script)", "bound", box=None, pad_edge=False)
    for figure in figures:
        table.add_row(figure.what, figure.value, figure.peer, figure.bound)
    console.print(table)


if __name__ == "__main__":
    main()
