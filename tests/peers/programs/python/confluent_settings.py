"""Settings of confluent-kafka's clients for a broker in plaintext, or over mutual TLS with the files of a client folder."""

import os

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic


def settings(bootstrap, folder=None, **more):
    common = {"bootstrap.servers": bootstrap, "client.id": "programs", "topic.metadata.refresh.interval.ms": 2000}
    if folder:
        with open(os.path.join(folder, "librdkafka.conf"), encoding="utf-8") as file:
            lines = [line.strip() for line in file]
        common = dict(line.split("=", 1) for line in lines if line and line[0] != "#") | common
    return common | {name.replace("_", "."): value for name, value in more.items()}


def wait_for(futures):
    """The results of an admin call, one per resource; the first error is raised."""
    return {resource: future.result(30) for resource, future in futures.items()}


def error_of(futures):
    """The code that the one future of an admin call fails with."""
    try:
        wait_for(futures)
    except KafkaException as error:
        return error.args[0].code()
    return None


def create_topics(where, partitions, *names):
    admin = AdminClient(settings(*where))
    wait_for(admin.create_topics([NewTopic(name, partitions, 1) for name in names]))
