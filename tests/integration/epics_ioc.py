"""A real EPICS IOC (caproto's), as a process that a test tells what to do.

python epics_ioc.py PREFIX      prints "ready"; then, a line of JSON at a time on standard input:
                                {"pv": "temperature", "value": 3.5, "severity": 2, "status": 3} → prints "done"
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import Any

from caproto import ChannelDouble, ChannelEnum, ChannelInteger, ChannelString
from caproto.asyncio.server import Context


async def serve(prefix: str) -> None:
    pvs: dict[str, Any] = {
        "temperature": ChannelDouble(value=20.0, units="degC"),
        "shutter": ChannelEnum(value="Closed", enum_strings=["Closed", "Open"]),
        "sample": ChannelString(value="none"),
        "image": ChannelInteger(value=[1, 2, 3], max_length=5),
    }
    loop = asyncio.get_running_loop()

    async def ready(_: Any) -> None:
        print("ready", flush=True)
        threading.Thread(target=commands, daemon=True).start()

    def commands() -> None:
        for line in sys.stdin:
            asyncio.run_coroutine_threadsafe(obey(json.loads(line)), loop).result(10)
            print("done", flush=True)

    async def obey(command: dict[str, Any]) -> None:
        pv = pvs[command["pv"]]
        if "severity" in command:
            await pv.alarm.write(severity=command["severity"], status=command["status"])
        if "value" in command:
            await pv.write(command["value"], verify_value=False)

    context = Context({prefix + name: pv for name, pv in pvs.items()}, interfaces=["127.0.0.1"])
    await context.run(startup_hook=ready)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
