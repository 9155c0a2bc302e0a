"""Measurements, each beside what a user would pick instead, printed with machine and versions: `make bench`.

    machine      what was measured on
    system       a system of its own for the measurement, started cold
    watching     file complete → started → result; publish → started
    calling      round trip, no-ops per second, map items per second
    whole_way    CPU of a no-op in each process on its way
    idling       CPU and memory of all parts while nothing happens
    watchdog_script  the same with a process pool, and with a watchdog script
    peers        what users pick today, beside Upon: `python -m benchmarks.peers`

Tests never depend on these figures; they depend on the machine.
"""
