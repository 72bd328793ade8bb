"""aiokafka: what a transaction writes is seen after the commit and never after an abort; a later producer with the same
transactional id fences the earlier one."""

import asyncio

from aio_settings import create_topic, settings
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import ProducerFenced
from checks import expect, expect_soon_async, unique


async def visible(topic, isolation, *where):
    """All values of both partitions that a consumer sees now, sorted."""
    partitions = [TopicPartition(topic, partition) for partition in range(2)]
    async with AIOKafkaConsumer(**settings(*where, isolation_level=isolation, auto_offset_reset="earliest")) as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)  # of what this isolation level may read
        values = []
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for messages in (await consumer.getmany(timeout_ms=500)).values():
                values += [message.value.decode() for message in messages]
        return sorted(values)


async def send(producer, topic, *values):
    sent = [await producer.send(topic, value.encode(), partition=number % 2) for number, value in enumerate(values)]
    await asyncio.gather(*sent)


async def run(*where):
    topic, name = unique("transactions"), unique("payments")
    admin = AIOKafkaAdminClient(**settings(*where))
    await admin.start()
    expect("created", await create_topic(admin, topic, 2), 0)
    await admin.close()

    async def sees(when, isolation, *wanted):
        await expect_soon_async(f"{isolation}, {when}", lambda: visible(topic, isolation, *where), sorted(wanted))

    producer = AIOKafkaProducer(**settings(*where, transactional_id=name))
    await producer.start()

    async with producer.transaction():
        await send(producer, topic, "a", "b", "c")
        await sees("open", "read_committed")
        await sees("open", "read_uncommitted", "a", "b", "c")
    await sees("committed", "read_committed", "a", "b", "c")

    await producer.begin_transaction()
    await send(producer, topic, "x", "y", "z")
    await producer.abort_transaction()
    await sees("aborted", "read_uncommitted", "a", "b", "c", "x", "y", "z")
    await sees("aborted", "read_committed", "a", "b", "c")

    for number in range(20):  # one after the other, without a pause
        await producer.begin_transaction()
        await send(producer, topic, f"n{number}", f"m{number}")
        await (producer.abort_transaction() if number % 4 == 3 else producer.commit_transaction())
    wanted = ["a", "b", "c"] + [f"{letter}{number}" for number in range(20) if number % 4 != 3 for letter in "nm"]
    await sees("of twenty more", "read_committed", *wanted)
    await fence(producer, name, topic, *where)
    await sees("after the fence", "read_committed", *wanted, "from the newer")


async def fence(older, name, topic, *where):
    await older.begin_transaction()
    await send(older, topic, "from the older")
    async with AIOKafkaProducer(**settings(*where, transactional_id=name)) as newer:
        await newer.begin_transaction()
        await send(newer, topic, "from the newer")
        try:
            await older.commit_transaction()
            raise AssertionError("the older producer could commit")
        except ProducerFenced:
            print("the older producer is fenced")
        await newer.commit_transaction()
    await older.stop()
