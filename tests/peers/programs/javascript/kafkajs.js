// kafkajs: how its clients are made.

'use strict'

const fs = require('node:fs')
const path = require('node:path')
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')

// gzip is its own; the others are packages. For zstd there is none that still compiles.
const codecs = ['None', 'GZIP', 'Snappy']
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
try {
  CompressionCodecs[CompressionTypes.LZ4] = new (require('kafkajs-lz4'))().codec
  codecs.push('LZ4')
} catch (error) {
  console.log(`without LZ4: ${error.message}`)
}

module.exports = (bootstrap, folder) => {
  const read = name => fs.readFileSync(path.join(folder, name))
  const kafka = new Kafka({
    clientId: 'programs',
    brokers: [bootstrap],
    logLevel: logLevel.ERROR,
    ...(folder && { ssl: { ca: [read('ca.pem')], cert: read('client.pem'), key: read('client.key') } }),
  })

  return {
    codecs,
    admin: () => kafka.admin({ retry: { retries: 2 } }), // it also repeats what is refused for good

    async producer({ codec = 'None', transactionalId } = {}) {
      const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, transactionalId })
      await producer.connect()
      const send = producer.send
      producer.send = record => send({ ...record, compression: CompressionTypes[codec] })
      return producer
    },

    // A member of a group that will read a topic from its beginning; `assigned` gives the partitions that it has now.
    async consumer({ groupId, topic, isolation = 'committed', autoCommit = true }) {
      const consumer = kafka.consumer({
        groupId,
        heartbeatInterval: 300,
        sessionTimeout: 10_000,
        maxWaitTimeInMs: 200,
        readUncommitted: isolation === 'uncommitted',
      })
      let assigned = []
      consumer.on(consumer.events.GROUP_JOIN, event => (assigned = event.payload.memberAssignment[topic] ?? []))
      consumer.on(consumer.events.REBALANCING, () => (assigned = []))
      await consumer.connect()
      await consumer.subscribe({ topic, fromBeginning: true })
      const run = consumer.run
      consumer.run = handlers => run({ autoCommit, autoCommitInterval: 200, ...handlers })
      return Object.assign(consumer, { assigned: () => assigned })
    },

    // The consumer's position goes into the transaction.
    sendOffsets: (transaction, { groupId, topics }) => transaction.sendOffsets({ consumerGroupId: groupId, topics }),
    fenced: error => error.type === 'INVALID_PRODUCER_EPOCH' || error.type === 'PRODUCER_FENCED',
    codes: { exists: false, unknownGroup: 69, nonEmptyGroup: 68, offsetOutOfRange: 1 },
  }
}
