// An operator's day, as far as each client's admin goes: topics and their settings, partitions, offsets, deleting records,
// groups; and what is refused, with the code that says why.

'use strict'

const { eventually, expect, expectSoon, failure, unique } = require('./checks')

const TOPIC = 2 // a resource type
const [INVALID_TOPIC, UNKNOWN_TOPIC, OUT_OF_RANGE, INVALID_PARTITIONS, INVALID_REPLICATION, INVALID_CONFIG] = [17, 3, 1, 37, 38, 40]

module.exports = async client => {
  const admin = client.admin()
  await admin.connect()
  const topic = unique('admin')
  await create(admin, topic)
  if (admin.alterConfigs) await changeSettings(admin, topic)
  await addPartitions(client, admin, topic)
  await lookAtOffsets(client, admin, topic)
  await lookAtGroups(client, admin, topic)
  await admin.deleteTopics({ topics: [topic] })
  await eventually('the topic is gone', async () => !(await admin.listTopics()).includes(topic))
  expect('deleting it again', await failure(admin.deleteTopics({ topics: [topic] })), UNKNOWN_TOPIC)
  await admin.disconnect()
}

async function create(admin, topic) {
  const setting = (name, value) => [{ name, value }]
  const make = (name, numPartitions, configEntries, replicationFactor = 1) =>
    admin.createTopics({ topics: [{ topic: name, numPartitions, replicationFactor, configEntries }] })
  expect('created', await make(topic, 3, setting('retention.ms', '3600000')), true)
  expect('created again', await make(topic, 3, []), false)
  expect('no such name', await failure(make('a/b', 1, [])), INVALID_TOPIC)
  expect('no partitions', await failure(make(unique('x'), 0, [])), INVALID_PARTITIONS)
  expect('too many replicas', await failure(make(unique('x'), 1, [], 5)), INVALID_REPLICATION)
  expect('a setting without sense', await failure(make(unique('x'), 1, setting('retention.ms', 'soon'))), INVALID_CONFIG)
  await eventually('listed', async () => (await admin.listTopics()).includes(topic))
}

async function changeSettings(admin, topic) {
  const describe = async name => {
    const { resources } = await admin.describeConfigs({ includeSynonyms: true, resources: [{ type: TOPIC, name: topic }] })
    const { configValue, configSource } = resources[0].configEntries.find(entry => entry.configName === name)
    return [configValue, configSource]
  }
  await expectSoon('retention.ms, of the topic', () => describe('retention.ms'), ['3600000', 1])
  await expectSoon('max.message.bytes, the default', () => describe('max.message.bytes'), ['1048588', 5])
  const alter = (name, value, resource = topic) =>
    admin.alterConfigs({ validateOnly: false, resources: [{ type: TOPIC, name: resource, configEntries: [{ name, value }] }] })
  await alter('max.message.bytes', '200000')
  await expectSoon('max.message.bytes, altered', () => describe('max.message.bytes'), ['200000', 1])
  await expectSoon('retention.ms, not named and so the default again', () => describe('retention.ms'), ['604800000', 5])
  expect('a bad value', await failure(alter('max.message.bytes', '-5')), INVALID_CONFIG)
  expect('an unknown topic', await failure(alter('retention.ms', '1000', unique('nowhere'))), UNKNOWN_TOPIC)
}

async function addPartitions(client, admin, topic) {
  const add =
    client.addPartitions ?? ((name, count) => admin.createPartitions({ topicPartitions: [{ topic: name, count }] }))
  await add(topic, 5)
  await eventually('five partitions', async () => {
    const found = await admin.fetchTopicMetadata({ topics: [topic] })
    return (found.topics ?? found)[0].partitions.length === 5
  })
  expect('fewer partitions', await failure(add(topic, 2)), INVALID_PARTITIONS)
  expect('partitions of an unknown topic', await failure(add(unique('x'), 2)), UNKNOWN_TOPIC)
}

async function lookAtOffsets(client, admin, topic) {
  const producer = await client.producer()
  const messages = Array.from({ length: 10 }, (_, n) => ({ value: `${n}`, partition: 0, timestamp: `${1_700_000_000_000 + n * 1000}` }))
  await producer.send({ topic, messages })
  await producer.disconnect()
  const first = offsets => offsets.find(({ partition }) => partition === 0)
  const range = async () => (({ low, high }) => [low, high])(first(await admin.fetchTopicOffsets(topic)))
  expect('first and end offset', await range(), ['0', '10'])
  expect('at a time', first(await admin.fetchTopicOffsetsByTimestamp(topic, 1_700_000_003_500)).offset, '4')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
  expect('after deleting records', await range(), ['4', '10'])
  const tooFar = admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '11' }] })
  expect('deleting beyond the end', await failure(tooFar), OUT_OF_RANGE)
}

async function lookAtGroups(client, admin, topic) {
  const groupId = unique('operators')
  const consumer = await client.consumer({ groupId, topic })
  let seen = 0
  await consumer.run({ eachMessage: async () => void seen++ })
  await eventually('six records are consumed', () => seen === 6)
  expect('listed', (await admin.listGroups()).groups.some(group => group.groupId === groupId), true)
  const described = (await admin.describeGroups([groupId])).groups[0]
  expect('members', described.members.map(({ clientId }) => clientId), ['programs'])
  expect('a group with members cannot go', await failure(admin.deleteGroups([groupId])), client.codes.nonEmptyGroup)
  await consumer.disconnect()

  const committed = async () => {
    const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
    return partitions.find(({ partition }) => partition === 0).offset
  }
  await eventually('all six are committed', async () => (await committed()) === '10')
  if (admin.setOffsets) {
    await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '7' }] })
    expect('committed by the operator', await committed(), '7')
  }
  await admin.deleteGroups([groupId])
  expect('an unknown group', await failure(admin.deleteGroups([groupId])), client.codes.unknownGroup)
}
