import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { listBackups, luksType } from '@holdfast/vault'
import { type AgentLab, agentLab } from './agent-lab.ts'
import { commanded, everyKill, type Order } from './crash-lab.ts'
import { isReceiptOf, type SignedReceipt } from './receipt.ts'

// An enrolled node's own process, killed after its effects while it carries out an order that shuts it
// or destroys keys, then started again: the end is the same wherever the power was cut.

/** The receipt of an order: the node's own, as it was before. */
async function receiptOf(lab: AgentLab, { id }: Order): Promise<SignedReceipt['receipt']> {
  const file = join(lab.options.directory, 'receipts', `${id}.json`)
  const receipt = JSON.parse(await readFile(file, 'utf8')) as SignedReceipt // the agent wrote it
  assert.ok(isReceiptOf(lab.card().node, receipt))
  return receipt.receipt
}

async function backupsOf({ options: { directory } }: AgentLab): Promise<number> {
  const vaults = await readdir(join(directory, 'vaults'))
  const listed = vaults.map((uuid) => listBackups(directory, uuid))
  return (await Promise.all(listed)).flatMap(({ backups }) => backups).length
}

/** The process goes on as a new machine, which shows a code. */
const isNewMachine = ({ events }: AgentLab) => events.some(({ kind }) => kind === 'code')

for (const { level, backups } of [
  { level: 2, backups: 1 },
  { level: 3, backups: 0 },
]) {
  test(`killed in the middle of panic ${level}, a node ends destroyed, with a receipt`, async () => {
    await using lab = await agentLab()
    const keysFile = () => readFile(join(lab.options.directory, 'keys.json'), 'utf8')
    let keys = ''
    await everyKill(lab, {
      orderOf: () => ({ ...commanded('panic', { level }), isOver: isNewMachine }),
      before: async () => {
        keys = await keysFile()
      },
      check: async (order) => {
        assert.equal(await luksType({ device: lab.device }), undefined)
        assert.equal(await backupsOf(lab), backups, 'ways back')
        const receipt = await receiptOf(lab, order)
        assert.equal((receipt.vault as { level: number } | null)?.level, level)
        assert.notEqual(await keysFile(), keys, 'the new machine has keys of its own')
      },
    })
  })
}

test('killed in the middle of panic 1, a node ends locked and stays so', async () => {
  await using lab = await agentLab()
  await everyKill(lab, {
    orderOf: () => commanded('panic', { level: 1 }),
    check: async (order) => {
      assert.equal((await receiptOf(lab, order)).what, 'locked')
      lab.reports.length = 0
      const again = await lab.startProcess(0)
      assert.ok(again !== undefined)
      // Its temporary key is still in memory: without being held it would open.
      const report = await lab.until('a report', () => lab.reports.findLast(({ held }) => held))
      assert.equal(report.phase, 'locked')
      await again[Symbol.asyncDispose]()
      assert.equal(await luksType({ device: lab.device }), 'luks2')
    },
  })
})

for (const command of ['reset', 'leave'] as const) {
  test(`killed in the middle of a ${command}, a node ends without keys, with a receipt`, async () => {
    await using lab = await agentLab()
    await everyKill(lab, {
      orderOf: () => commanded(command),
      check: async (order) => {
        assert.equal(await luksType({ device: lab.device }), undefined)
        assert.equal(await backupsOf(lab), 0)
        const receipt = await receiptOf(lab, order)
        assert.equal((receipt.vault as { level: number } | null)?.level, 3)
      },
    })
  })
}
