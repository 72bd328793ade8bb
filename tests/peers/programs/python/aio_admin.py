"""aiokafka: an operator's day, as far as its admin client goes: topics and their settings, partitions, deleting records,
groups; and what is refused, with the error that says why."""

from aio_settings import create_topic, settings
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidConfigurationError, InvalidPartitionsError, InvalidTopicError, TopicAlreadyExistsError, UnknownTopicOrPartitionError,
)
from checks import expect, expect_soon_async, unique

DYNAMIC_TOPIC_CONFIG, DEFAULT_CONFIG = 1, 5


async def run(*where):
    admin, topic = AIOKafkaAdminClient(**settings(*where)), unique("admin")
    await admin.start()
    try:
        await create(admin, topic)
        await change_settings(admin, topic)
        await add_partitions(admin, topic)
        await look_at_records(admin, topic, *where)
        await look_at_groups(admin, topic, *where)
        await delete(admin, topic)
    finally:
        await admin.close()


async def create(admin, topic):
    expect("created", await create_topic(admin, topic, 3, retention_ms="3600000"), 0)
    expect("the topic exists", await create_topic(admin, topic, 3), TopicAlreadyExistsError.errno)
    expect("no such name", await create_topic(admin, "a/b", 1), InvalidTopicError.errno)
    expect("no partitions", await create_topic(admin, unique("x"), 0), InvalidPartitionsError.errno)
    wrong = await create_topic(admin, unique("x"), 1, retention_ms="soon")
    expect("a setting without sense", wrong, InvalidConfigurationError.errno)
    await expect_soon_async("listed", lambda: listed(admin, topic), True)


async def listed(admin, topic):
    return topic in await admin.list_topics()


async def configuration(admin, topic):
    """(value, source) of two of a topic's settings."""
    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [(code, _, _, _, entries, *_)] = response.resources
    assert code == 0, code
    all_settings = {name: (value, source) for name, value, _, source, *_ in entries}
    return {name: all_settings[name] for name in ["retention.ms", "max.message.bytes"]}


async def change_settings(admin, topic):
    made = {"retention.ms": ("3600000", DYNAMIC_TOPIC_CONFIG), "max.message.bytes": ("1048588", DEFAULT_CONFIG)}
    await expect_soon_async("settings as created", lambda: configuration(admin, topic), made)
    changed = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "200000"})
    [response] = await admin.alter_configs([changed])
    expect("altered", [code for code, *_ in response.resources], [0])
    # What is not named goes back to its default.
    now = {"retention.ms": ("604800000", DEFAULT_CONFIG), "max.message.bytes": ("200000", DYNAMIC_TOPIC_CONFIG)}
    await expect_soon_async("settings as altered", lambda: configuration(admin, topic), now)
    unknown = ConfigResource(ConfigResourceType.TOPIC, unique("nowhere"), {"retention.ms": "1"})
    [response] = await admin.alter_configs([unknown])
    expect("an unknown topic", [code for code, *_ in response.resources], [UnknownTopicOrPartitionError.errno])


async def add_partitions(admin, topic):
    await admin.create_partitions({topic: NewPartitions(5)})

    async def partitions():
        [described] = await admin.describe_topics([topic])
        return sorted(p["partition"] for p in described["partitions"])

    await expect_soon_async("partitions", partitions, [0, 1, 2, 3, 4])
    try:
        await admin.create_partitions({topic: NewPartitions(2)})
        raise AssertionError("fewer partitions were accepted")
    except InvalidPartitionsError:
        print("fewer partitions are refused")
    cluster = await admin.describe_cluster()
    expect("the controller is one of the brokers", cluster["controller_id"] in {b["node_id"] for b in cluster["brokers"]}, True)


async def look_at_records(admin, topic, *where):
    first = TopicPartition(topic, 0)
    async with AIOKafkaProducer(**settings(*where)) as producer:
        for number in range(10):
            await producer.send_and_wait(topic, b"%d" % number, partition=0, timestamp_ms=1_700_000_000_000 + number * 1000)
    async with AIOKafkaConsumer(**settings(*where)) as consumer:
        expect("end", await consumer.end_offsets([first]), {first: 10})
        found = await consumer.offsets_for_times({first: 1_700_000_003_500})
        expect("at a time", (found[first].offset, found[first].timestamp), (4, 1_700_000_004_000))
        expect("low watermark", await admin.delete_records({first: RecordsToDelete(4)}), {first: 4})
        expect("beginning", await consumer.beginning_offsets([first]), {first: 4})


async def look_at_groups(admin, topic, *where):
    group, first = unique("operators"), TopicPartition(topic, 0)
    options = settings(*where, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest")
    async with AIOKafkaConsumer(topic, **options) as consumer:
        await consumer.getone()
        await consumer.commit({first: (7, "by hand")})
        expect("the group is listed", (group, "consumer") in [tuple(g[:2]) for g in await admin.list_consumer_groups()], True)
        [response] = await admin.describe_consumer_groups([group])
        [(code, name, state, kind, assignor, members, *_)] = response.groups
        expect("described", (code, name, state, kind, assignor), (0, group, "Stable", "consumer", "roundrobin"))
        expect("members", [member[1] for member in members], ["programs"])
    offsets = await admin.list_consumer_group_offsets(group)
    expect("committed", {p: tuple(o) for p, o in offsets.items()}, {first: (7, "by hand")})


async def delete(admin, topic):
    response = await admin.delete_topics([topic])
    expect("deleted", [tuple(t) for t in response.topic_error_codes], [(topic, 0)])
    response = await admin.delete_topics([topic])
    expect("deleting it again", [tuple(t) for t in response.topic_error_codes], [(topic, UnknownTopicOrPartitionError.errno)])
    await expect_soon_async("listed", lambda: listed(admin, topic), False)
