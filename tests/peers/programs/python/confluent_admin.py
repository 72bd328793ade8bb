"""confluent-kafka: an operator's day. Topics and their settings, partitions, offsets, deleting records, groups; and
what is refused, with the error that says why."""

from checks import eventually, expect, expect_soon, unique
from confluent_kafka import (
    Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, Producer, TopicCollection, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, NewPartitions, NewTopic, OffsetSpec,
)
from confluent_settings import error_of, settings, wait_for


def run(*where):
    admin = AdminClient(settings(*where))
    topic = unique("admin")
    create(admin, topic)
    change_settings(admin, topic)
    add_partitions(admin, topic)
    look_at_offsets(admin, topic, *where)
    look_at_groups(admin, topic, *where)
    delete(admin, topic)


def create(admin, topic):
    new = NewTopic(topic, 3, 1, config={"retention.ms": "3600000", "cleanup.policy": "delete"})
    expect("only validated", error_of(admin.create_topics([new], validate_only=True)), None)
    expect("so not there", topic in admin.list_topics(timeout=10).topics, False)
    wait_for(admin.create_topics([new]))
    eventually("listed", lambda: topic in admin.list_topics(timeout=10).topics)
    for what, wrong, code in [
        ("the topic exists", new, KafkaError.TOPIC_ALREADY_EXISTS),
        ("no such name", NewTopic("a/b", 1, 1), KafkaError.TOPIC_EXCEPTION),
        ("no partitions", NewTopic(unique("x"), 0, 1), KafkaError.INVALID_PARTITIONS),
        ("too many replicas", NewTopic(unique("x"), 1, 5), KafkaError.INVALID_REPLICATION_FACTOR),
        ("a setting without sense", NewTopic(unique("x"), 1, 1, config={"retention.ms": "soon"}), KafkaError.INVALID_CONFIG),
        ("an unknown setting", NewTopic(unique("x"), 1, 1, config={"colour": "red"}), KafkaError.INVALID_CONFIG),
    ]:
        expect(what, error_of(admin.create_topics([wrong])), code)


def configuration(admin, name):
    return wait_for(admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)])).popitem()[1]


def change_settings(admin, topic):
    before = configuration(admin, topic)
    expect("retention.ms", before["retention.ms"].value, "3600000")
    expect("it was set for the topic", before["retention.ms"].source, ConfigSource.DYNAMIC_TOPIC_CONFIG.value)
    expect("max.message.bytes", before["max.message.bytes"].value, "1048588")
    expect("that is the default", before["max.message.bytes"].source, ConfigSource.DEFAULT_CONFIG.value)

    def change(name, value, how):
        entry = ConfigEntry(name, value, incremental_operation=how)
        return admin.incremental_alter_configs([ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])])

    wait_for(change("max.message.bytes", "200000", AlterConfigOpType.SET))
    wait_for(change("cleanup.policy", "compact", AlterConfigOpType.APPEND))
    wait_for(change("retention.ms", None, AlterConfigOpType.DELETE))
    expect("a bad value", error_of(change("max.message.bytes", "-5", AlterConfigOpType.SET)), KafkaError.INVALID_CONFIG)
    for name, value in [("max.message.bytes", "200000"), ("cleanup.policy", "delete,compact"), ("retention.ms", "604800000")]:
        expect_soon(f"{name} after the changes", lambda: configuration(admin, topic)[name].value, value)
    wait_for(change("cleanup.policy", "compact", AlterConfigOpType.SUBTRACT))
    unknown = [ConfigResource(ConfigResource.Type.TOPIC, unique("nowhere"))]
    expect("settings of an unknown topic", error_of(admin.describe_configs(unknown)), KafkaError.UNKNOWN_TOPIC_OR_PART)


def add_partitions(admin, topic):
    wait_for(admin.create_partitions([NewPartitions(topic, 5)]))
    eventually("five partitions", lambda: len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 5)
    expect("fewer partitions", error_of(admin.create_partitions([NewPartitions(topic, 2)])), KafkaError.INVALID_PARTITIONS)
    expect("partitions of an unknown topic", error_of(admin.create_partitions([NewPartitions(unique("x"), 2)])),
           KafkaError.UNKNOWN_TOPIC_OR_PART)
    described = wait_for(admin.describe_topics(TopicCollection([topic])))[topic]
    expect("described partitions", [p.id for p in described.partitions], [0, 1, 2, 3, 4])
    brokers = {node.id for node in admin.describe_cluster().result(30).nodes}
    expect("leaders that are no brokers", {p.leader.id for p in described.partitions} - brokers, set())


def look_at_offsets(admin, topic, *where):
    producer = Producer(settings(*where))
    for number in range(10):
        producer.produce(topic, str(number), partition=0, timestamp=1_700_000_000_000 + number * 1000)
    expect("records still queued", producer.flush(30), 0)
    first = TopicPartition(topic, 0)

    def offset(spec):
        return wait_for(admin.list_offsets({first: spec}))[first].offset

    expect("earliest", offset(OffsetSpec.earliest()), 0)
    expect("latest", offset(OffsetSpec.latest()), 10)
    expect("newest timestamp", offset(OffsetSpec.max_timestamp()), 9)
    expect("at a time", offset(OffsetSpec.for_timestamp(1_700_000_003_500)), 4)
    deleted = wait_for(admin.delete_records([TopicPartition(topic, 0, 4)]))
    expect("low watermark", next(iter(deleted.values())).low_watermark, 4)
    expect("earliest after deleting records", offset(OffsetSpec.earliest()), 4)
    too_far = admin.delete_records([TopicPartition(topic, 0, 11)])
    expect("deleting beyond the end", error_of(too_far), KafkaError.OFFSET_OUT_OF_RANGE)


def look_at_groups(admin, topic, *where):
    group = unique("operators")
    consumer = Consumer(settings(*where, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False))
    consumer.subscribe([topic])
    eventually("a record is there", lambda: consumer.poll(0.5) is not None)
    consumer.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)

    listed = {g.group_id: g for g in admin.list_consumer_groups().result(30).valid}
    expect("the group is listed", listed[group].state, ConsumerGroupState.STABLE)
    described = wait_for(admin.describe_consumer_groups([group]))[group]
    expect("members", [(m.client_id, len(m.assignment.topic_partitions)) for m in described.members], [("programs", 5)])
    expect("a group with members cannot go", error_of(admin.delete_consumer_groups([group])), KafkaError.NON_EMPTY_GROUP)
    consumer.close()

    def committed():
        result = wait_for(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))[group]
        return {(p.partition, p.offset) for p in result.topic_partitions}

    expect("committed", committed(), {(0, 7)})
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 5), TopicPartition(topic, 1, 0)])
    wait_for(admin.alter_consumer_group_offsets([moved]))
    expect("committed by the operator", committed(), {(0, 5), (1, 0)})
    wait_for(admin.delete_consumer_groups([group]))
    expect("groups listed", group in {g.group_id for g in admin.list_consumer_groups().result(30).valid}, False)
    expect("an unknown group", error_of(admin.delete_consumer_groups([group])), KafkaError.GROUP_ID_NOT_FOUND)


def delete(admin, topic):
    wait_for(admin.delete_topics([topic]))
    eventually("the topic is gone", lambda: topic not in admin.list_topics(timeout=10).topics)
    expect("deleting it again", error_of(admin.delete_topics([topic])), KafkaError.UNKNOWN_TOPIC_OR_PART)
