"""What the programs share: names, waiting, comparing, and the ledger of what was produced and consumed."""

import asyncio
import threading
import time
import uuid
from collections import Counter


def unique(word):
    """A name that no earlier run has used."""
    return f"{word}-{uuid.uuid4().hex[:10]}"


def expect(what, got, wanted):
    assert got == wanted, f"{what}: got {got!r}, expected {wanted!r}"
    print(f"{what}: {str(wanted)[:90]}", flush=True)


def eventually(what, condition, seconds=60):
    """Waits until the condition is true: the cluster does some things in its own time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    print(what, flush=True)


async def eventually_async(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)
    print(what, flush=True)


def expect_soon(what, get, wanted, seconds=20):
    """Compares again and again: a commit is answered before its marker is in every partition."""
    deadline = time.monotonic() + seconds
    while (got := get()) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    expect(what, got, wanted)


async def expect_soon_async(what, get, wanted, seconds=20):
    deadline = time.monotonic() + seconds
    while (got := await get()) != wanted and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    expect(what, got, wanted)


class Ledger:
    """Every number that was acknowledged and every number that was consumed, by whom."""

    def __init__(self):
        self.lock = threading.Lock()
        self.produced = set()
        self.consumed = Counter()
        self.by_member = Counter()

    def add_produced(self, number):
        with self.lock:
            self.produced.add(number)

    def add_consumed(self, member, number):
        with self.lock:
            self.consumed[number] += 1
            self.by_member[member] += 1

    def settled(self):
        with self.lock:
            return self.produced <= self.consumed.keys()

    def check(self):
        """Everything once, nothing else."""
        twice = {n: c for n, c in self.consumed.items() if c > 1}
        expect("records that came more than once", twice, {})
        expect("records that never came", self.produced - self.consumed.keys(), set())
        expect("records that nobody produced", self.consumed.keys() - self.produced, set())
        print(f"{len(self.produced)} records, consumed by {dict(self.by_member)}")
