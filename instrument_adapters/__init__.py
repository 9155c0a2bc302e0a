"""Instrument adapters: sources that speak an instrument's own protocol."""

if __name__ != "upon.instrument_adapters":
    raise ImportError("import this package as upon.instrument_adapters, not instrument_adapters")
