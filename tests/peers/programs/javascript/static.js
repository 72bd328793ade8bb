// Static members (KIP-345): one that restarts gets its partitions back, and nobody else notices.

'use strict'

const { eventually, expect, unique } = require('./checks')

module.exports = async client => {
  const [topic, groupId, values] = [unique('static'), unique('readers'), []]
  const admin = client.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 4 }] })

  const join = async instance => {
    const member = await client.consumer({ groupId, topic, instance, variant: 'cooperative' })
    await member.run({ eachMessage: async ({ message }) => void values.push(message.value.toString()) })
    return member
  }
  const balanced = (...members) => members.every(member => member.assigned().length === 2)
  const [one, two] = [await join('one'), await join('two')]
  await eventually('two partitions each', () => balanced(one, two))
  const [before, others] = [one.assigned().sort(), two.assigned().sort()]
  let disturbed = 0
  const watch = setInterval(() => (disturbed += two.assigned().sort().join() === others.join() ? 0 : 1), 20)
  await one.disconnect() // a static member does not leave the group

  const producer = await client.producer()
  await producer.send({ topic, messages: ['a', 'b', 'c', 'd'].map((value, partition) => ({ value, partition })) })
  await producer.disconnect()
  const again = await join('one')
  await eventually('the restarted member has two again', () => balanced(again, two))
  expect('the same partitions', again.assigned().sort(), before)
  await eventually('all is consumed', () => values.length >= 4)
  expect('each once', values.sort(), ['a', 'b', 'c', 'd'])
  clearInterval(watch)
  expect('times that the other had other partitions', disturbed, 0)
  const { groups } = await admin.describeGroups([groupId])
  expect('names of the members', groups[0].members.map(member => member.groupInstanceId).sort(), ['one', 'two'])
  for (const member of [again, two]) await member.disconnect()
  await admin.disconnect()
}
