"""aiokafka: static members (KIP-345). One that restarts gets its partitions back, and nobody else notices."""

import asyncio

from aio_settings import create_topic, settings
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient
from checks import eventually_async, expect, unique


class Member(ConsumerRebalanceListener):
    def __init__(self, name, group, topic, *where):
        self.assigned, self.rebalances, self.values = set(), 0, []
        self.consumer = AIOKafkaConsumer(**settings(*where, group_id=group, group_instance_id=name, auto_offset_reset="earliest",
                                                    session_timeout_ms=20_000, heartbeat_interval_ms=500))
        self.consumer.subscribe([topic], listener=self)
        self.task = asyncio.create_task(self.consume())

    async def on_partitions_assigned(self, assigned):
        self.rebalances += 1
        self.assigned = {p.partition for p in assigned}

    async def on_partitions_revoked(self, revoked):
        self.assigned = set()

    async def consume(self):
        await self.consumer.start()
        async for message in self.consumer:
            self.values.append(message.value.decode())

    async def stop(self):
        """Ends the process; a static member does not leave the group."""
        await self.consumer.stop()
        await asyncio.wait_for(self.task, 20)


def balanced(*members):
    return [len(member.assigned) for member in members] == [2] * len(members)


async def run(*where):
    topic, group = unique("static"), unique("readers")
    admin = AIOKafkaAdminClient(**settings(*where))
    await admin.start()
    expect("created", await create_topic(admin, topic, 4), 0)
    one, two = Member("one", group, topic, *where), Member("two", group, topic, *where)
    await eventually_async("two partitions each", lambda: balanced(one, two))
    before, rebalances = one.assigned, two.rebalances
    await one.stop()
    async with AIOKafkaProducer(**settings(*where)) as producer:
        for partition, letter in enumerate([b"a", b"b", b"c", b"d"]):
            await producer.send_and_wait(topic, letter, partition=partition)
    again = Member("one", group, topic, *where)
    await eventually_async("the restarted member has two again", lambda: balanced(again, two))
    expect("the same partitions", again.assigned, before)
    await eventually_async("all is consumed", lambda: len(again.values + two.values) >= 4)
    expect("each once", sorted(again.values + two.values), list("abcd"))
    expect("rebalances that the other saw", two.rebalances - rebalances, 0)
    await again.stop()
    await two.stop()
    await admin.close()
