"""confluent-kafka: records in every codec, with keys, headers and timestamps, out as they went in."""

import os

from checks import expect, unique
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_settings import create_topics, settings

START = 1_700_000_000_000


def records():
    """(partition, timestamp, key, value, headers): empty and absent ones, a header twice, text, bytes, a large one."""
    yield 0, START, None, b"no key", []
    yield 0, START + 1, b"deleted", None, [("why", b"tombstone")]
    yield 1, START + 2, b"", b"", [("empty", b""), ("none", None)]
    yield 1, START + 3, "schlüssel".encode(), "wert €".encode(), [("twice", b"1"), ("twice", b"2"), ("", b"no name")]
    yield 2, START + 4, os.urandom(40), os.urandom(400_000), [("random", os.urandom(100))]
    for number in range(300):
        yield number % 3, START + 10 + number, f"k{number}".encode(), b"value %d " % number * 20, [("n", b"%d" % number)]


def produce(topic, wanted, codec, *where):
    failed = []
    producer = Producer(settings(*where, enable_idempotence=True, compression_type=codec, linger_ms=20))
    for partition, timestamp, key, value, headers in wanted:
        producer.produce(topic, value, key, partition, timestamp=timestamp, headers=headers,
                         on_delivery=lambda error, _: failed.append(error) if error else None)
        producer.poll(0)
    expect(f"{codec}: not delivered", (producer.flush(30), failed), (0, []))


def consume(topic, count, *where):
    consumer = Consumer(settings(*where, group_id=unique("readers"), enable_auto_commit=False))
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(3)])
    got = []
    while len(got) < count:
        message = consumer.poll(20)
        assert message is not None, f"only {len(got)} of {count} records came"
        assert message.error() is None, message.error()
        got.append((message.partition(), message.timestamp()[1], message.key(), message.value(), message.headers() or []))
    consumer.close()
    return got


def run(*where):
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        topic = unique(f"records-{codec}")
        create_topics(where, 3, topic)
        wanted = list(records())
        produce(topic, wanted, codec, *where)
        got = consume(topic, len(wanted), *where)
        for partition in range(3):
            same = [r for r in got if r[0] == partition] == [r for r in wanted if r[0] == partition]
            expect(f"{codec}: partition {partition} is what was produced, in order", same, True)
