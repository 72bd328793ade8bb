"""confluent-kafka: three members join one after the other, one leaves, records flow all the time; each record is
consumed exactly once, and whoever comes later goes on where the others stopped.

Variants: eager and cooperative (classic protocol), consumer (KIP-848).
"""

import threading
import time

from checks import Ledger, eventually, expect, unique
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_settings import create_topics, settings, wait_for

PARTITIONS = 6
PROTOCOLS = {
    "eager": {"partition_assignment_strategy": "range", "heartbeat_interval_ms": 500},
    "cooperative": {"partition_assignment_strategy": "cooperative-sticky", "heartbeat_interval_ms": 500},
    "consumer": {"group_protocol": "consumer"},
}


class Source(threading.Thread):
    """Produces numbers, about 200 a second, until it is stopped."""

    def __init__(self, topic, ledger, *where):
        super().__init__(daemon=True)
        self.topic, self.ledger, self.stopping = topic, ledger, False
        self.producer = Producer(settings(*where, enable_idempotence=True))

    def run(self):
        number = 0
        while not self.stopping:
            self.producer.produce(self.topic, str(number), partition=number % PARTITIONS, on_delivery=self.delivered)
            self.producer.poll(0.005)
            number += 1
        self.producer.flush(30)

    def delivered(self, error, message):
        assert error is None, error
        self.ledger.add_produced(int(message.value()))

    def stop(self):
        self.stopping = True
        self.join(40)


class Member(threading.Thread):
    """Consumes; commits what it is about to give away, and when it leaves."""

    def __init__(self, name, group, topic, ledger, *where, **more):
        super().__init__(daemon=True, name=name)
        self.ledger, self.leaving, self.assigned, self.failure = ledger, False, set(), None
        self.consumer = Consumer(settings(*where, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False, **more))
        self.consumer.subscribe([topic], on_assign=self.on_assign, on_revoke=self.on_revoke)
        self.done = {}

    def on_assign(self, _, partitions):
        self.assigned |= {p.partition for p in partitions}

    def on_revoke(self, consumer, partitions):
        offsets = [self.done.pop(p.partition) for p in partitions if p.partition in self.done]
        if offsets:
            consumer.commit(offsets=offsets, asynchronous=False)
        self.assigned -= {p.partition for p in partitions}

    def run(self):
        try:
            while not self.leaving:
                message = self.consumer.poll(0.1)
                if message is None:
                    continue
                if message.error():
                    raise KafkaException(message.error())
                self.ledger.add_consumed(self.name, int(message.value()))
                self.done[message.partition()] = TopicPartition(message.topic(), message.partition(), message.offset() + 1)
        except Exception as failure:  # told to whoever waits for the member
            self.failure = failure
        self.consumer.close()

    def leave(self):
        self.leaving = True
        self.join(40)
        assert not self.is_alive() and self.failure is None, f"{self.name}: {self.failure}"


def shared(members, sizes):
    """Whether the partitions are all given away, each to one member, in these shares."""
    for member in members:
        assert member.failure is None, f"{member.name}: {member.failure}"
    shares = [set(member.assigned) for member in members]
    return sorted(map(len, shares)) == sizes and len(set().union(*shares)) == PARTITIONS


def run(*where, variant):
    topic, group, ledger = unique("group"), unique("readers"), Ledger()
    admin = AdminClient(settings(*where))
    create_topics(where, PARTITIONS, topic)
    source = Source(topic, ledger, *where)
    source.start()

    def join(name):
        member = Member(name, group, topic, ledger, *where, **PROTOCOLS[variant])
        member.start()
        return member

    first = join("first")
    eventually("one member has all", lambda: shared([first], [6]))
    second = join("second")
    eventually("two members have three each", lambda: shared([first, second], [3, 3]))
    third = join("third")
    eventually("three members have two each", lambda: shared([first, second, third], [2, 2, 2]))
    described = wait_for(admin.describe_consumer_groups([group]))[group]
    expect("members described", len(described.members), 3)
    expect("type of the group", described.type.name, "CONSUMER" if variant == "consumer" else "CLASSIC")
    first.leave()
    eventually("two members are left, three each", lambda: shared([second, third], [3, 3]))
    source.stop()
    eventually("all is consumed", ledger.settled)
    second.leave()
    third.leave()
    ledger.check()
    resume(group, topic, ledger, *where, **PROTOCOLS[variant])


def resume(group, topic, ledger, *where, **protocol):
    """The group is empty; a new member continues at the committed offsets."""
    source = Source(topic, later := Ledger(), *where)
    source.start()
    time.sleep(1)
    source.stop()
    member = Member("resumed", group, topic, later, *where, **protocol)
    member.start()
    eventually("what came meanwhile is consumed", later.settled)
    member.leave()
    later.check()
    consumer = Consumer(settings(*where, group_id=group))
    offsets = consumer.committed([TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=30)
    consumer.close()
    expect("sum of the committed offsets", sum(p.offset for p in offsets), len(ledger.produced) + len(later.produced))
