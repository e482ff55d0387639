import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { ceremonyDrills } from './ceremony-catalogue.ts'
import { opensslCommands } from './ceremony-openssl-commands.ts'
import { type Claims, proveDrills } from './drill-claims.ts'

const claims: Claims = {
  'recovery-single-holder': ['its identity is the same', 'one answer is enough'],
  'recovery-three-of-five': ['all ten triples opened it and no pair did'],
  'recovery-restarted': ['the ceremony goes on where it was', 'it opens, in the same ceremony'],
  'recovery-two-instances': ['instance two knows what instance one took', 'instance one follows'],
  'answers-refused': ['the share of an earlier data key', 'exactly one has answered'],
  'holder-openssl': ['by the commands of the guide', 'and a manifest is approved'],
  'holder-token': ['the token refuses OAEP with SHA-256', 'raw RSA in the token'],
  'holder-air-gap': ['altered on its way', 'shows no share', 'it completes the recovery'],
  'junk-answers': ['no larger', 'listened to twenty times', 'two holders get through'],
  'holders-changed': [
    'the old holders still open it',
    'the proof from before the crash stands',
    'two new holders open it',
  ],
  'old-state-put-back': ['one holder and a restart do not', 'above all that was seen'],
  'state-dismissed': [
    'one holder alone changes nothing',
    'two holders give it up',
    'given up and claimed at once',
    'the archive opens to its holders',
  ],
  'only-holders-left': ['under a temporary identity', 'no token of the backup is good'],
}

test('the drill types the commands of the guide, all of them and exactly', async () => {
  const guide = new URL('../../docs/operator/holders.md', import.meta.url)
  const blocks = (await readFile(guide, 'utf8')).matchAll(/```sh\n([\s\S]*?)```/g)
  assert.deepEqual(
    Object.values(opensslCommands),
    [...blocks].map(([, block]) => block),
  )
})

proveDrills('coordinators and their holders, for real', ceremonyDrills, claims)
