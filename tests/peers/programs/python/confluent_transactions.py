"""confluent-kafka: what a transaction writes is seen after the commit and never after an abort; a later producer with
the same transactional id fences the earlier one."""

from checks import expect, expect_soon, unique
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_settings import create_topics, settings


def visible(topic, isolation, *where):
    """All values of both partitions that a consumer sees now, sorted."""
    consumer = Consumer(settings(*where, group_id=unique("readers"), isolation_level=isolation, enable_partition_eof=True))
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(2)])
    values, ends = [], 0
    while ends < 2:
        message = consumer.poll(20)
        assert message is not None, "no end of the partition"
        if message.error() is None:
            values.append(message.value().decode())
        elif message.error().code() == KafkaError._PARTITION_EOF:
            ends += 1
        else:
            raise KafkaException(message.error())
    consumer.close()
    return sorted(values)


def send(producer, topic, *values):
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % 2)
    expect("records still queued", producer.flush(30), 0)


def run(*where):
    topic, name = unique("transactions"), unique("payments")
    create_topics(where, 2, topic)

    def sees(when, isolation, *wanted):
        expect_soon(f"{isolation}, {when}", lambda: visible(topic, isolation, *where), sorted(wanted))

    producer = Producer(settings(*where, transactional_id=name))
    producer.init_transactions(30)

    producer.begin_transaction()
    send(producer, topic, "a", "b", "c")
    sees("open", "read_committed")
    sees("open", "read_uncommitted", "a", "b", "c")
    producer.commit_transaction(30)
    sees("committed", "read_committed", "a", "b", "c")

    producer.begin_transaction()
    send(producer, topic, "x", "y", "z")
    producer.abort_transaction(30)
    sees("aborted", "read_uncommitted", "a", "b", "c", "x", "y", "z")
    sees("aborted", "read_committed", "a", "b", "c")

    for number in range(20):  # one after the other, without a pause
        producer.begin_transaction()
        send(producer, topic, f"n{number}", f"m{number}")
        producer.abort_transaction(30) if number % 4 == 3 else producer.commit_transaction(30)
    wanted = ["a", "b", "c"] + [f"{letter}{number}" for number in range(20) if number % 4 != 3 for letter in "nm"]
    sees("of twenty more", "read_committed", *wanted)
    fence(producer, name, topic, *where)
    sees("after the fence", "read_committed", *wanted, "from the newer")


def fence(older, name, topic, *where):
    older.begin_transaction()
    send(older, topic, "from the older")
    newer = Producer(settings(*where, transactional_id=name))
    newer.init_transactions(30)
    newer.begin_transaction()
    send(newer, topic, "from the newer")
    try:
        older.commit_transaction(30)
        raise AssertionError("the older producer could commit")
    except KafkaException as error:
        expect("the older producer is fenced", (error.args[0].code(), error.args[0].fatal()), (KafkaError._FENCED, True))
    newer.commit_transaction(30)
