"""Instrument adapters: sources that speak an instrument's own protocol, by the contract of `upon.triggers.source`.

epics           EPICS Channel Access monitors
epics_changes   which of its readings are events: pure
"""

if __name__ != "upon.instrument_adapters":
    raise ImportError("import this package as upon.instrument_adapters, not instrument_adapters")
