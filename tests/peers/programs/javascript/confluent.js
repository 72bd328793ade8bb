// @confluentinc/kafka-javascript: how its clients are made.

'use strict'

const path = require('node:path')
const { AdminClient, KafkaJS } = require('@confluentinc/kafka-javascript')
const { ErrorCodes, Kafka, logLevel } = KafkaJS

// Members of a group, by variant: the first two are the classic protocol, the third is KIP-848.
const PROTOCOLS = {
  eager: { kafkaJS: { partitionAssigners: ['roundrobin'], heartbeatInterval: 500 } },
  cooperative: { kafkaJS: { partitionAssigners: ['cooperative-sticky'], heartbeatInterval: 500 } },
  consumer: { 'group.protocol': 'consumer', kafkaJS: {} },
}

module.exports = (bootstrap, folder) => {
  const files = folder && {
    'security.protocol': 'ssl',
    'ssl.ca.location': path.join(folder, 'ca.pem'),
    'ssl.certificate.location': path.join(folder, 'client.pem'),
    'ssl.key.location': path.join(folder, 'client.key'),
  }
  const common = { 'client.id': 'programs', 'topic.metadata.refresh.interval.ms': 2000, ...files }
  const kafka = new Kafka({ ...common, kafkaJS: { brokers: [bootstrap], logLevel: logLevel.ERROR } })

  return {
    codecs: ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD'],
    admin: () => kafka.admin(),

    async producer({ codec = 'None', transactionalId } = {}) {
      const producer = kafka.producer({
        'linger.ms': 5,
        kafkaJS: { idempotent: true, compression: codec.toLowerCase(), ...(transactionalId && { transactionalId }) },
      })
      await producer.connect()
      return producer
    },

    // A member of a group that will read a topic from its beginning; `assigned` gives the partitions that it has now.
    async consumer({ groupId, topic, isolation = 'committed', autoCommit = true, variant = 'eager', instance }) {
      const protocol = PROTOCOLS[variant]
      const consumer = kafka.consumer({
        ...protocol,
        ...(instance && { 'group.instance.id': instance }),
        'fetch.wait.max.ms': 200,
        kafkaJS: {
          ...protocol.kafkaJS,
          groupId,
          fromBeginning: true,
          autoCommit,
          autoCommitInterval: 200,
          readUncommitted: isolation === 'uncommitted',
        },
      })
      await consumer.connect()
      await consumer.subscribe({ topic })
      return Object.assign(consumer, { assigned: () => consumer.assignment().map(({ partition }) => partition) })
    },

    // The consumer's position goes into the transaction.
    sendOffsets: (transaction, { consumer, topics }) => transaction.sendOffsets({ consumer, topics }),
    fenced: error => error.code === ErrorCodes.ERR__FENCED,
    codes: { unknownGroup: ErrorCodes.ERR_GROUP_ID_NOT_FOUND, nonEmptyGroup: ErrorCodes.ERR_NON_EMPTY_GROUP },

    // Its kafkajs-like admin has no partitions to add; the older interface has.
    addPartitions: (topic, count) =>
      new Promise((resolve, reject) => {
        const admin = AdminClient.create({ ...common, 'bootstrap.servers': bootstrap })
        admin.createPartitions(topic, count, 10_000, error => {
          admin.disconnect()
          error ? reject(error) : resolve()
        })
      }),
  }
}
