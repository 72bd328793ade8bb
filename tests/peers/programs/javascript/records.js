// Records in every codec that the client has, with keys, headers and timestamps, out as they went in.

'use strict'

const crypto = require('node:crypto')
const { eventually, expect, unique } = require('./checks')

// Absent keys and values, an empty header, a header twice, text, bytes, a large one.
function sample() {
  const records = [
    { partition: 0, key: null, value: Buffer.from('no key'), headers: {} },
    { partition: 0, key: Buffer.from('deleted'), value: null, headers: { why: 'tombstone' } },
    { partition: 1, key: Buffer.from('k'), value: Buffer.from('v'), headers: { empty: '' } },
    { partition: 1, key: Buffer.from('schlüssel'), value: Buffer.from('wert €'), headers: { twice: ['1', '2'] } },
    { partition: 2, key: crypto.randomBytes(40), value: crypto.randomBytes(400_000), headers: { random: crypto.randomBytes(100) } },
  ]
  for (let n = 0; n < 300; n++)
    records.push({ partition: n % 3, key: Buffer.from(`k${n}`), value: Buffer.from(`value ${n} `.repeat(20)), headers: { n: `${n}` } })
  return records.map((record, n) => ({ ...record, timestamp: `${1_700_000_000_000 + n}` }))
}

// What of a record must come back, as text: all but the offset.
function seen({ partition, timestamp, key, value, headers }) {
  const hex = bytes => (bytes == null ? null : Buffer.from(bytes).toString('hex'))
  const pairs = Object.entries(headers ?? {}).map(([name, held]) => [name, [held].flat().map(hex)])
  return JSON.stringify([partition, timestamp, hex(key), hex(value), pairs])
}

module.exports = async client => {
  const admin = client.admin()
  await admin.connect()
  for (const codec of client.codecs) {
    const topic = unique(`records-${codec}`)
    await admin.createTopics({ topics: [{ topic, numPartitions: 3 }] })
    const messages = sample()
    const of = (records, partition) => records.filter(record => record.partition === partition).map(seen).join()
    const sent = [0, 1, 2].map(partition => of(messages, partition)) // one client changes the messages as it sends them
    const producer = await client.producer({ codec })
    await producer.send({ topic, messages })
    await producer.disconnect()

    const got = []
    const consumer = await client.consumer({ groupId: unique('readers'), topic })
    await consumer.run({ eachMessage: async ({ partition, message }) => void got.push({ partition, ...message }) })
    await eventually(`${codec}: ${messages.length} records are back`, () => got.length >= messages.length)
    await consumer.disconnect()
    for (const partition of [0, 1, 2])
      expect(`${codec}: partition ${partition} is what was produced, in order`, of(got, partition) === sent[partition], true)
  }
  await admin.disconnect()
}
