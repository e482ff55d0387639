import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WrongOffers } from './wrong-offers.ts'

function counted(sources: number) {
  let now = 10 * 3_600_000
  const offers = new WrongOffers({ most: 3, sources, monotonic: () => now })
  return {
    offers,
    wrong: (address: string, times: number) => {
      for (let count = 0; count < times; count += 1) offers.count(address)
    },
    pass: (milliseconds: number) => {
      now += milliseconds
    },
  }
}

test('all addresses of one network of IPv6 are one stranger', () => {
  const { offers, wrong } = counted(10)
  for (const host of [':1', ':2', 'ffff:1:2:3']) wrong(`2001:db8:0:1:${host}`, 1)
  assert.equal(offers.isRefused('2001:db8:0:1::4'), true)
  assert.equal(offers.isRefused('2001:db8:0:2::4'), false)
  wrong('::ffff:192.0.2.1', 3)
  assert.equal(offers.isRefused('192.0.2.1'), true)
  assert.equal(offers.isRefused('192.0.2.2'), false)
})

test('who is not heard is not forgotten for newer ones, but after an hour', () => {
  const { offers, wrong, pass } = counted(4)
  wrong('192.0.2.1', 3)
  for (let host = 1; host < 100; host += 1) wrong(`198.51.100.${host}`, 1)
  assert.equal(offers.isRefused('192.0.2.1'), true)
  pass(3_599_999)
  assert.equal(offers.isRefused('192.0.2.1'), true)
  pass(1)
  assert.equal(offers.isRefused('192.0.2.1'), false)
})

test('where nobody who is remembered is heard, all new ones are counted together', () => {
  const { offers, wrong, pass } = counted(2)
  wrong('192.0.2.1', 3)
  wrong('192.0.2.2', 3)
  assert.equal(offers.isRefused('192.0.2.3'), false)
  wrong('192.0.2.3', 1)
  wrong('192.0.2.4', 2)
  assert.deepEqual(
    [1, 2, 3, 5].map((host) => offers.isRefused(`192.0.2.${host}`)),
    [true, true, true, true],
  )
  pass(3_600_000)
  assert.equal(offers.isRefused('192.0.2.5'), false)
})
