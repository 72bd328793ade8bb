// Consume, transform, produce, with the offsets in the same transaction. One transaction is aborted and done again, one is
// left open by a process that dies; the output has each input exactly once.

'use strict'

const { eventually, expect, unique } = require('./checks')

const INPUTS = 200
const PARTITIONS = 3

// Writes ten times each input of a batch; `end` commits, aborts, or does nothing.
async function transform(client, { consumer, producer, groupId, target, batch }, end) {
  const transaction = await producer.transaction()
  const { topic, partition, messages } = batch
  const offset = `${Number(messages[messages.length - 1].offset) + 1}`
  // Partitions are named: kafkajs spreads messages anew when it sends again, though brokers that answered got theirs, so that
  // with several brokers some would be there twice and others not at all.
  const outputs = messages.map(({ value }) => ({ value: `${Number(value) * 10}`, partition: Number(value) % PARTITIONS }))
  await transaction.send({ topic: target, messages: outputs })
  await client.sendOffsets(transaction, { consumer, groupId, topics: [{ topic, partitions: [{ partition, offset }] }] })
  await end(transaction)
}

const commit = transaction => transaction.commit()
const abort = transaction => transaction.abort()
const leaveOpen = async () => {}

// Runs a process until `rounds` says that it is over: for each batch the ways to end it, one after the other.
async function run(client, names, rounds) {
  const { source: topic, groupId, transactionalId, target } = names
  const producer = await client.producer({ transactionalId })
  const consumer = await client.consumer({ groupId, topic, autoCommit: false })
  let over = false
  let failed
  await consumer.run({
    eachBatch: async ({ batch }) => {
      if (over) return
      try {
        for (const end of rounds.next(batch)) await transform(client, { consumer, producer, groupId, target, batch }, end)
      } catch (error) {
        failed = error
      }
      over = failed !== undefined || rounds.over()
    },
  })
  await eventually('the process is over', () => over)
  if (failed) throw failed
  await consumer.disconnect()
}

async function outputs(client, topic) {
  const values = []
  const consumer = await client.consumer({ groupId: unique('readers'), topic })
  await consumer.run({ eachMessage: async ({ message }) => void values.push(Number(message.value)) })
  await eventually('the outputs are there', () => values.length >= INPUTS)
  await consumer.disconnect()
  return values.sort((a, b) => a - b)
}

module.exports = async client => {
  const names = { source: unique('inputs'), target: unique('outputs'), groupId: unique('transformers'), transactionalId: unique('transformer') }
  const admin = client.admin()
  await admin.connect()
  await admin.createTopics({ topics: [names.source, names.target].map(topic => ({ topic, numPartitions: PARTITIONS })) })
  const producer = await client.producer()
  const messages = Array.from({ length: INPUTS }, (_, n) => ({ value: `${n}`, partition: n % PARTITIONS }))
  await producer.send({ topic: names.source, messages })
  await producer.disconnect()

  const plan = [[commit], [abort, commit], [leaveOpen]]
  let done = 0
  await run(client, names, {
    next(batch) {
      const ends = plan.shift()
      done += ends.includes(commit) ? batch.messages.length : 0
      return ends
    },
    over: () => plan.length === 0,
  })
  expect('some are committed, some in an open transaction', done > 0 && done < INPUTS, true)
  await run(client, names, {
    next(batch) {
      done += batch.messages.length
      return [commit]
    },
    over: () => done >= INPUTS,
  })
  expect('outputs', await outputs(client, names.target), Array.from({ length: INPUTS }, (_, n) => n * 10))
  const [{ partitions }] = await admin.fetchOffsets({ groupId: names.groupId, topics: [names.source] })
  expect('sum of the committed offsets', partitions.reduce((sum, { offset }) => sum + Number(offset), 0), INPUTS)
  await admin.disconnect()
}
