"""confluent-kafka: static members (KIP-345). One that restarts gets its partitions back and nobody else notices; a second
process with the same name takes its place.

Variants: classic, consumer (KIP-848).
"""

from checks import eventually, expect, unique
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient
from confluent_settings import create_topics, settings, wait_for

PROTOCOLS = {"classic": {"session_timeout_ms": 20000, "heartbeat_interval_ms": 500}, "consumer": {"group_protocol": "consumer"}}


class Member:
    def __init__(self, name, group, topic, *where, **protocol):
        self.assigned, self.rebalances, self.values, self.errors = set(), 0, [], []
        self.consumer = Consumer(settings(*where, group_id=group, group_instance_id=name, auto_offset_reset="earliest", **protocol))
        self.consumer.subscribe([topic], on_assign=self.on_assign, on_revoke=self.on_revoke)

    def on_assign(self, _, partitions):
        self.rebalances += 1
        self.assigned |= {p.partition for p in partitions}

    def on_revoke(self, _, partitions):
        self.rebalances += 1
        self.assigned -= {p.partition for p in partitions}

    def poll(self):
        message = self.consumer.poll(0.05)
        if message is not None and message.error():
            self.errors.append(message.error())
        elif message is not None:
            self.values.append(message.value().decode())


def balanced(*members):
    for member in members:
        member.poll()
    return [len(member.assigned) for member in members] == [2] * len(members)


def run(*where, variant):
    protocol, topic, group = PROTOCOLS[variant], unique("static"), unique("readers")
    admin = AdminClient(settings(*where))
    create_topics(where, 4, topic)

    def join(name):
        return Member(name, group, topic, *where, **protocol)

    def send(values):
        producer = Producer(settings(*where))
        for number, value in enumerate(values):
            producer.produce(topic, value, partition=number % 4)
        expect("records still queued", producer.flush(30), 0)

    one, two = join("one"), join("two")
    eventually("two partitions each", lambda: balanced(one, two))
    before, rebalances = set(one.assigned), two.rebalances
    one.consumer.close()  # a static member does not leave the group
    send(list("abcd"))
    again = join("one")
    eventually("the restarted member has two again", lambda: balanced(again, two))
    expect("the same partitions", again.assigned, before)
    eventually("all is consumed", lambda: not balanced(again, two) or sorted(again.values + two.values) == list("abcd"))
    expect("rebalances that the other saw", two.rebalances - rebalances, 0)
    described = wait_for(admin.describe_consumer_groups([group]))[group]
    expect("names of the members", sorted(m.group_instance_id for m in described.members), ["one", "two"])
    if variant == "classic":  # with KIP-848 the newcomer is refused as long as the other lives
        fenced(again, join("one"), two)
    else:
        refused(join("one"), again, two)


def fenced(old, new, other):
    eventually("the newcomer has the partitions", lambda: balanced(new, other))
    eventually("the old member is told", lambda: old.poll() or old.errors)
    expect("that it is fenced", {e.code() for e in old.errors}, {KafkaError._FATAL})
    for member in (new, other, old):
        member.consumer.close()


def refused(new, old, other):
    eventually("the newcomer is told", lambda: new.poll() or (balanced(old, other) and new.errors))
    expect("that the name is taken", {e.code() for e in new.errors}, {KafkaError._FATAL})
    for member in (new, old, other):
        member.consumer.close()
