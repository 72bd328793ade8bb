"""aiokafka: three members join one after the other, one leaves, records flow all the time; each record is consumed exactly
once, and whoever comes later goes on where the others stopped.

Variants, all of the classic protocol and eager: range, roundrobin, sticky.
"""

import asyncio

from aio_settings import create_topic, settings
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from checks import Ledger, eventually_async, expect, unique

PARTITIONS = 6
ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor, "sticky": StickyPartitionAssignor}


async def produce(topic, ledger, stopping, *where):
    """Numbers, about 200 a second, until told to stop."""
    async with AIOKafkaProducer(**settings(*where, enable_idempotence=True)) as producer:
        number = 0
        while not stopping.is_set():
            await producer.send_and_wait(topic, b"%d" % number, partition=number % PARTITIONS)
            ledger.add_produced(number)
            number += 1
            await asyncio.sleep(0.004)


class Member(ConsumerRebalanceListener):
    """Consumes; commits what it is about to give away, and when it leaves."""

    def __init__(self, name, group, topic, ledger, assignor, *where):
        self.name, self.ledger, self.assigned, self.done, self.leaving = name, ledger, set(), {}, asyncio.Event()
        self.consumer = AIOKafkaConsumer(
            **settings(*where, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                       partition_assignment_strategy=[ASSIGNORS[assignor]], heartbeat_interval_ms=500)
        )
        self.consumer.subscribe([topic], listener=self)
        self.task = asyncio.create_task(self.consume())

    async def on_partitions_assigned(self, assigned):
        self.assigned = {p.partition for p in assigned}

    async def on_partitions_revoked(self, revoked):
        await self.commit()
        self.assigned = set()

    async def commit(self):
        if self.done:
            offsets, self.done = self.done, {}
            await self.consumer.commit(offsets)

    async def consume(self):
        await self.consumer.start()
        while not self.leaving.is_set():
            for partition, messages in (await self.consumer.getmany(timeout_ms=100)).items():
                for message in messages:
                    self.ledger.add_consumed(self.name, int(message.value))
                self.done[partition] = messages[-1].offset + 1
        await self.commit()
        await self.consumer.stop()

    async def leave(self):
        self.leaving.set()
        await asyncio.wait_for(self.task, 40)


def shared(members, sizes):
    """Whether the partitions are all given away, each to one member, in these shares."""
    for member in members:
        assert not member.task.done(), f"{member.name} ended: {member.task}"
    shares = [member.assigned for member in members]
    return sorted(map(len, shares)) == sizes and len(set().union(*shares)) == PARTITIONS


async def run(*where, variant):
    topic, group, ledger, stopping = unique("group"), unique("readers"), Ledger(), asyncio.Event()
    admin = AIOKafkaAdminClient(**settings(*where))
    await admin.start()
    expect("created", await create_topic(admin, topic, PARTITIONS), 0)
    source = asyncio.create_task(produce(topic, ledger, stopping, *where))

    def join(name):
        return Member(name, group, topic, ledger, variant, *where)

    first = join("first")
    await eventually_async("one member has all", lambda: shared([first], [6]))
    second = join("second")
    await eventually_async("two members have three each", lambda: shared([first, second], [3, 3]))
    third = join("third")
    await eventually_async("three members have two each", lambda: shared([first, second, third], [2, 2, 2]))
    [response] = await admin.describe_consumer_groups([group])
    expect("assignor and members described", (response.groups[0][4], len(response.groups[0][5])), (variant, 3))
    await first.leave()
    await eventually_async("two members are left, three each", lambda: shared([second, third], [3, 3]))
    stopping.set()
    await source
    await eventually_async("all is consumed", ledger.settled)
    await second.leave()
    await third.leave()
    ledger.check()
    await resume(group, topic, len(ledger.produced), variant, *where)
    await admin.close()


async def resume(group, topic, before, variant, *where):
    """The group is empty; a new member continues at the committed offsets."""
    later, stopping = Ledger(), asyncio.Event()
    source = asyncio.create_task(produce(topic, later, stopping, *where))
    await asyncio.sleep(1)
    stopping.set()
    await source
    member = Member("resumed", group, topic, later, variant, *where)
    await eventually_async("what came meanwhile is consumed", later.settled)
    await member.leave()
    later.check()
    async with AIOKafkaConsumer(**settings(*where, group_id=group)) as consumer:
        offsets = [await consumer.committed(TopicPartition(topic, partition)) for partition in range(PARTITIONS)]
    expect("sum of the committed offsets", sum(offsets), before + len(later.produced))
