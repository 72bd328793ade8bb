// Runs one program of one client: main.js kafkajs|confluent PROGRAM HOST:PORT [CLIENT-FOLDER].
//
// With a folder (its client's certificate, as Casemate writes it) the broker is reached over mutual TLS. The programs are the
// same for both clients, whose interfaces are alike; what differs is in kafkajs.js and confluent.js.

'use strict'

const [name, program, bootstrap, folder] = process.argv.slice(2)
const [scenario, variant] = program.split(':')
const client = require(`./${name}`)(bootstrap, folder)

setTimeout(() => {
  console.error('not finished within 150 s')
  process.exit(1)
}, 150_000).unref()

require(`./${scenario}`)(client, variant).then(
  () => process.exit(0),
  error => {
    console.error(error)
    process.exit(1)
  }
)
