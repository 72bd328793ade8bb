"""confluent-kafka: consume, transform, produce, with the offsets in the same transaction. One transaction is aborted, one is
left open by a process that dies; the output has each input exactly once."""

from checks import expect, unique
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_settings import create_topics, settings

INPUTS, PARTITIONS, BATCH = 200, 3, 25


class Transformer:
    def __init__(self, source, target, group, name, *where):
        self.target, self.source = target, source
        self.consumer = Consumer(settings(*where, group_id=group, isolation_level="read_committed", auto_offset_reset="earliest",
                                          enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=500))
        self.consumer.subscribe([source])
        self.producer = Producer(settings(*where, transactional_id=name))
        self.producer.init_transactions(30)

    def batch(self):
        """Begins a transaction with the next inputs; returns how many there were."""
        messages = []
        while len(messages) < BATCH and (message := self.consumer.poll(20 if not messages else 1)):
            if message.error():
                raise KafkaException(message.error())
            messages.append(message)
        self.producer.begin_transaction()
        for message in messages:
            self.producer.produce(self.target, b"%d" % (int(message.value()) * 10), message.key())
        positions = self.consumer.position(self.consumer.assignment())
        self.producer.send_offsets_to_transaction(positions, self.consumer.consumer_group_metadata(), 30)
        return len(messages)

    def commit(self):
        self.producer.commit_transaction(30)

    def abort(self):
        """Undoes the batch: the consumer goes back to where the last commit was."""
        self.producer.abort_transaction(30)
        for partition in self.consumer.committed(self.consumer.assignment(), timeout=30):
            partition.offset = max(partition.offset, 0)
            self.consumer.seek(partition)


def read(topic, count, *where):
    consumer = Consumer(settings(*where, group_id=unique("readers"), isolation_level="read_committed", auto_offset_reset="earliest"))
    consumer.subscribe([topic])
    values = []
    while message := consumer.poll(20 if len(values) < count else 2):
        assert message.error() is None, message.error()
        values.append(int(message.value()))
    consumer.close()
    return sorted(values)


def run(*where):
    source, target, group, name = unique("inputs"), unique("outputs"), unique("transformers"), unique("transformer")
    create_topics(where, PARTITIONS, source, target)
    producer = Producer(settings(*where))
    for number in range(INPUTS):
        producer.produce(source, str(number), partition=number % PARTITIONS)
    producer.flush(30)

    first = Transformer(source, target, group, name, *where)
    done = first.batch()
    first.commit()
    first.batch()
    first.abort()
    done += first.batch()
    first.commit()
    left_open = first.batch()
    first.producer.flush(30)
    expect("inputs committed, and in an open transaction", (done, left_open), (2 * BATCH, BATCH))
    first.consumer.close()  # it dies: neither commit nor abort

    second = Transformer(source, target, group, name, *where)
    while done < INPUTS:
        done += second.batch()
        second.commit()
    expect("outputs", read(target, INPUTS, *where), [number * 10 for number in range(INPUTS)])
    committed = second.consumer.committed([TopicPartition(source, p) for p in range(PARTITIONS)], timeout=30)
    expect("sum of the committed offsets", sum(p.offset for p in committed), INPUTS)
    second.consumer.close()
