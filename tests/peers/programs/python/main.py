"""Runs one program of one client: main.py confluent-kafka|aiokafka PROGRAM HOST:PORT [CLIENT-FOLDER].

With a folder (its client's certificate, as Casemate writes it) the broker is reached over mutual TLS.
"""

import asyncio
import importlib
import inspect
import sys

PROGRAMS = {"confluent-kafka": "confluent", "aiokafka": "aio"}


def main():
    client, program, *where = sys.argv[1:]
    scenario, _, variant = program.partition(":")
    module = importlib.import_module(f"{PROGRAMS[client]}_{scenario.replace('-', '_')}")
    outcome = module.run(*where, **({"variant": variant} if variant else {}))
    if inspect.isawaitable(outcome):
        asyncio.run(asyncio.wait_for(outcome, 150))


main()
