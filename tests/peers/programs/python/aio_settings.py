"""Settings of aiokafka's clients for a broker in plaintext, or over mutual TLS with the files of a client folder."""

import os
import ssl


def settings(bootstrap, folder=None, **more):
    common = {"bootstrap_servers": bootstrap, "client_id": "programs"}
    if folder:
        context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))
        context.load_cert_chain(os.path.join(folder, "client.pem"), os.path.join(folder, "client.key"))
        common |= {"security_protocol": "SSL", "ssl_context": context}
    return common | more


async def create_topic(admin, name, partitions, **configs):
    """The error code of a topic's creation, 0 if it is there now."""
    from aiokafka.admin import NewTopic

    topic = NewTopic(name, partitions, 1, topic_configs={key.replace("_", "."): value for key, value in configs.items()})
    response = await admin.create_topics([topic])
    return response.topic_errors[0][1]
