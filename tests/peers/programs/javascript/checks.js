// What the programs share: names, waiting, comparing, and the ledger of what was produced and consumed.

'use strict'

const assert = require('node:assert/strict')
const crypto = require('node:crypto')

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

// A name that no earlier run has used.
const unique = word => `${word}-${crypto.randomBytes(5).toString('hex')}`

function expect(what, got, wanted) {
  assert.deepEqual(got, wanted, `${what}: got ${JSON.stringify(got)}, expected ${JSON.stringify(wanted)}`)
  console.log(`${what}: ${(JSON.stringify(wanted) ?? '').slice(0, 90)}`)
}

// Compares again and again: the cluster takes a moment to show what was changed.
async function expectSoon(what, get, wanted) {
  const same = got => JSON.stringify(got) === JSON.stringify(wanted)
  const deadline = Date.now() + 20_000
  let got = await get()
  for (; !same(got) && Date.now() < deadline; got = await get()) await sleep(200)
  expect(what, got, wanted)
}

// Waits until the condition is true: the cluster does some things in its own time.
async function eventually(what, condition, seconds = 60) {
  const deadline = Date.now() + seconds * 1000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`)
    await sleep(50)
  }
  console.log(what)
}

// The code that a call fails with, the first one where there are several; 0 if it succeeds.
async function failure(call) {
  try {
    await call
    return 0
  } catch (error) {
    const whole = error.cause ?? error
    const one = whole.errors?.[0] ?? whole.groups?.[0] ?? whole.partitions?.[0] ?? whole
    return one.code ?? one.errorCode ?? one.error?.code ?? error
  }
}

// Every number that was acknowledged, and how often each was consumed.
class Ledger {
  produced = new Set()
  consumed = new Map()

  addConsumed(number) {
    this.consumed.set(number, (this.consumed.get(number) ?? 0) + 1)
  }

  settled() {
    return [...this.produced].every(number => this.consumed.has(number))
  }

  // Everything once, nothing else.
  check() {
    const numbers = [...this.consumed.keys()]
    expect('records that came more than once', numbers.filter(number => this.consumed.get(number) > 1), [])
    expect('records that never came', [...this.produced].filter(number => !this.consumed.has(number)), [])
    expect('records that nobody produced', numbers.filter(number => !this.produced.has(number)), [])
    console.log(`${this.produced.size} records`)
  }
}

module.exports = { Ledger, eventually, expect, expectSoon, failure, sleep, unique }
