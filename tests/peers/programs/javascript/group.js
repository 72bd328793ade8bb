// Three members join one after the other, one leaves, records flow all the time; each record is consumed exactly once, and
// whoever comes later goes on where the others stopped.
//
// Variants: eager and cooperative (classic protocol), consumer (KIP-848), as far as the client has them.

'use strict'

const { Ledger, eventually, expect, sleep, unique } = require('./checks')

const PARTITIONS = 6

// Numbers, about 100 a second, until it is stopped.
async function start(client, topic, ledger) {
  const producer = await client.producer()
  let running = true
  const done = (async () => {
    for (let number = 0; running; number++) {
      await producer.send({ topic, messages: [{ value: `${number}`, partition: number % PARTITIONS }] })
      ledger.produced.add(number)
      await sleep(5)
    }
    await producer.disconnect()
  })()
  return async () => {
    running = false
    await done
  }
}

async function join(client, groupId, topic, variant, ledger) {
  const member = await client.consumer({ groupId, topic, variant })
  await member.run({ eachMessage: async ({ message }) => ledger.addConsumed(Number(message.value)) })
  return member
}

// Whether the partitions are all given away, each to one member, in these shares.
function shared(members, sizes) {
  const shares = members.map(member => member.assigned())
  const same = shares.map(share => share.length).sort().join() === sizes.join()
  return same && new Set(shares.flat()).size === PARTITIONS
}

module.exports = async (client, variant) => {
  const [topic, groupId, ledger] = [unique('group'), unique('readers'), new Ledger()]
  const admin = client.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS }] })
  const stop = await start(client, topic, ledger)

  const first = await join(client, groupId, topic, variant, ledger)
  await eventually('one member has all', () => shared([first], [6]))
  const second = await join(client, groupId, topic, variant, ledger)
  await eventually('two members have three each', () => shared([first, second], [3, 3]))
  const third = await join(client, groupId, topic, variant, ledger)
  await eventually('three members have two each', () => shared([first, second, third], [2, 2, 2]))
  const { groups } = await admin.describeGroups([groupId])
  expect('members described', groups[0].members.length, 3)
  await first.disconnect()
  await eventually('two members are left, three each', () => shared([second, third], [3, 3]))
  await stop()
  await eventually('all is consumed', () => ledger.settled())
  await second.disconnect()
  await third.disconnect()
  ledger.check()

  const later = new Ledger()
  const halt = await start(client, topic, later)
  await sleep(1000)
  await halt()
  const resumed = await join(client, groupId, topic, variant, later)
  await eventually('what came meanwhile is consumed', () => later.settled())
  await resumed.disconnect()
  later.check()
  const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
  const sum = partitions.reduce((total, { offset }) => total + Number(offset), 0)
  expect('sum of the committed offsets', sum, ledger.produced.size + later.produced.size)
  await admin.disconnect()
}
