"""aiokafka: consume, transform, produce, with the offsets in the same transaction. One transaction is aborted, one is left
open by a process that dies; the output has each input exactly once."""

from aio_settings import create_topic, settings
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from checks import expect, unique

INPUTS, PARTITIONS, BATCH = 200, 3, 25


class Transformer:
    def __init__(self, source, target, group, name, *where):
        self.source, self.target, self.group = source, target, group
        self.consumer = AIOKafkaConsumer(source, **settings(*where, group_id=group, isolation_level="read_committed",
                                                            auto_offset_reset="earliest", enable_auto_commit=False))
        self.producer = AIOKafkaProducer(**settings(*where, transactional_id=name))

    async def start(self):
        await self.producer.start()
        await self.consumer.start()

    async def batch(self):
        """Begins a transaction with the next inputs; returns how many there were."""
        batches = await self.consumer.getmany(timeout_ms=20_000, max_records=BATCH)
        await self.producer.begin_transaction()
        offsets, count = {}, 0
        for partition, messages in batches.items():
            for message in messages:
                await self.producer.send(self.target, b"%d" % (int(message.value) * 10), message.key)
            offsets[partition] = messages[-1].offset + 1
            count += len(messages)
        await self.producer.send_offsets_to_transaction(offsets, self.group)
        return count

    async def abort(self):
        """Undoes the batch: the consumer goes back to where the last commit was."""
        await self.producer.abort_transaction()
        for partition in self.consumer.assignment():
            self.consumer.seek(partition, await self.consumer.committed(partition) or 0)


async def read(topic, count, *where):
    options = settings(*where, isolation_level="read_committed", auto_offset_reset="earliest")
    async with AIOKafkaConsumer(topic, **options) as consumer:
        values = []
        while batches := await consumer.getmany(timeout_ms=20_000 if len(values) < count else 2000):
            values += [int(message.value) for messages in batches.values() for message in messages]
        return sorted(values)


async def run(*where):
    source, target, group, name = unique("inputs"), unique("outputs"), unique("transformers"), unique("transformer")
    admin = AIOKafkaAdminClient(**settings(*where))
    await admin.start()
    for topic in (source, target):
        expect("created", await create_topic(admin, topic, PARTITIONS), 0)
    await admin.close()
    async with AIOKafkaProducer(**settings(*where)) as producer:
        for number in range(INPUTS):
            await producer.send_and_wait(source, b"%d" % number, partition=number % PARTITIONS)

    first = Transformer(source, target, group, name, *where)
    await first.start()
    done = await first.batch()
    await first.producer.commit_transaction()
    await first.batch()
    await first.abort()
    done += await first.batch()
    await first.producer.commit_transaction()
    left_open = await first.batch()
    await first.producer.flush()
    expect("some are committed, some in an open transaction", done > 0 and left_open > 0, True)
    await first.consumer.stop()  # it dies: neither commit nor abort

    second = Transformer(source, target, group, name, *where)
    await second.start()
    while done < INPUTS:
        done += await second.batch()
        await second.producer.commit_transaction()
    expect("outputs", await read(target, INPUTS, *where), [number * 10 for number in range(INPUTS)])
    committed = [await second.consumer.committed(TopicPartition(source, p)) for p in range(PARTITIONS)]
    expect("sum of the committed offsets", sum(committed), INPUTS)
    await second.consumer.stop()
    await second.producer.stop()
