"""aiokafka: records in every codec, with keys, headers and timestamps, out as they went in."""

import asyncio
import os

from aio_settings import create_topic, settings
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from checks import expect, unique

START = 1_700_000_000_000


def records():
    """(partition, timestamp, key, value, headers): empty and absent ones, a header twice, text, bytes, a large one."""
    yield 0, START, None, b"no key", ()
    yield 0, START + 1, b"deleted", None, (("why", b"tombstone"),)
    yield 1, START + 2, b"", b"", (("empty", b""),)
    yield 1, START + 3, "schlüssel".encode(), "wert €".encode(), (("twice", b"1"), ("twice", b"2"), ("", b"no name"))
    yield 2, START + 4, os.urandom(40), os.urandom(400_000), (("random", os.urandom(100)),)
    for number in range(300):
        yield number % 3, START + 10 + number, f"k{number}".encode(), b"value %d " % number * 20, (("n", b"%d" % number),)


async def run(*where):
    admin = AIOKafkaAdminClient(**settings(*where))
    await admin.start()
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        topic = unique(f"records-{codec}")
        expect("created", await create_topic(admin, topic, 3), 0)
        wanted = list(records())
        options = settings(*where, enable_idempotence=True, compression_type=codec, linger_ms=20)
        async with AIOKafkaProducer(**options) as producer:
            sent = [await producer.send(topic, value, key, partition, timestamp, list(headers))
                    for partition, timestamp, key, value, headers in wanted]
            await asyncio.gather(*sent)
        async with AIOKafkaConsumer(**settings(*where, auto_offset_reset="earliest")) as consumer:
            consumer.assign([TopicPartition(topic, partition) for partition in range(3)])
            got = [await asyncio.wait_for(consumer.getone(), 20) for _ in wanted]
        for partition in range(3):
            theirs = [(m.partition, m.timestamp, m.key, m.value, m.headers) for m in got if m.partition == partition]
            same = theirs == [record for record in wanted if record[0] == partition]
            expect(f"{codec}: partition {partition} is what was produced, in order", same, True)
    await admin.close()
