// What a transaction writes is seen after the commit and never after an abort; a later producer with the same transactional
// id fences the earlier one.

'use strict'

const { expect, sleep, unique } = require('./checks')

// All values of the topic that a consumer sees until nothing came for a while, sorted.
async function visible(client, topic, isolation) {
  const values = []
  let last
  const consumer = await client.consumer({ groupId: unique('readers'), topic, isolation })
  await consumer.run({
    eachMessage: async ({ message }) => {
      values.push(message.value.toString())
      last = Date.now()
    },
  })
  while (consumer.assigned().length < 2) await sleep(50)
  last = Date.now()
  while (Date.now() - last < 1500) await sleep(50)
  await consumer.disconnect()
  return values.sort()
}

const messages = values => values.map((value, number) => ({ value, partition: number % 2 }))

module.exports = async client => {
  const [topic, transactionalId] = [unique('transactions'), unique('payments')]
  const admin = client.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 2 }] })
  await admin.disconnect()
  const producer = await client.producer({ transactionalId })
  const see = async (when, isolation, wanted) => expect(when, await visible(client, topic, isolation), wanted.sort())

  const first = await producer.transaction()
  await first.send({ topic, messages: messages(['a', 'b', 'c']) })
  await see('read_committed, open', 'committed', [])
  await see('read_uncommitted, open', 'uncommitted', ['a', 'b', 'c'])
  await first.commit()
  await see('read_committed, committed', 'committed', ['a', 'b', 'c'])

  const second = await producer.transaction()
  await second.send({ topic, messages: messages(['x', 'y', 'z']) })
  await second.abort()
  await see('read_uncommitted, aborted', 'uncommitted', ['a', 'b', 'c', 'x', 'y', 'z'])

  const wanted = ['a', 'b', 'c']
  for (let number = 0; number < 20; number++) {
    // one after the other, without a pause
    const transaction = await producer.transaction()
    const values = [`n${number}`, `m${number}`]
    await transaction.send({ topic, messages: messages(values) })
    if (number % 4 === 3) await transaction.abort()
    else {
      await transaction.commit()
      wanted.push(...values)
    }
  }
  await see('of twenty, the committed', 'committed', wanted)
  await fence(client, producer, topic, transactionalId)
  await see('and only the newer producer’s record', 'committed', [...wanted, 'from the newer'])
}

async function fence(client, older, topic, transactionalId) {
  const old = await older.transaction()
  await old.send({ topic, messages: messages(['from the older']) })
  const newer = await client.producer({ transactionalId })
  const transaction = await newer.transaction()
  await transaction.send({ topic, messages: messages(['from the newer']) })
  const error = await old.commit().then(() => null, refused => refused)
  expect(`the older producer is fenced (${error?.message})`, error !== null && client.fenced(error), true)
  await transaction.commit()
  await newer.disconnect()
}
