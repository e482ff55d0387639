import type { ArgumentSpec, OptionSpec } from './command.ts'

// Options that several commands share. This file is loaded at every start and imports nothing heavy.

/** How a holder takes part in opening: with the key itself, or with a share unwrapped elsewhere. */
export const holderOptions: readonly OptionSpec[] = [
  {
    flags: '--holder-key <NAME=FILE>',
    says: "a holder's private key, PEM; a passphrase is asked for when it has one",
    repeat: true,
    completes: 'file',
  },
  {
    flags: '--key-passphrase-file <FILE>',
    says: 'passphrase of the private keys; - is standard input',
    completes: 'file',
  },
  {
    flags: '--share <NAME=FILE>',
    says: "a holder's unwrapped share: the 32 bytes that openssl pkeyutl wrote, or their base64",
    repeat: true,
    completes: 'file',
  },
]

/** Options of every command that opens a sealed secret. */
export const openingOptions: readonly OptionSpec[] = [
  ...holderOptions,
  {
    flags: '--passphrase-file <FILE>',
    says: 'the passphrase of a passphrase pin; - is standard input',
    completes: 'file',
  },
  { flags: '--timeout <SECONDS>', says: 'how long one pin may take, in seconds', default: '10' },
]

/** `PIN CONFIG` as clevis takes them. */
export const policyArguments: readonly ArgumentSpec[] = [
  {
    name: 'PIN',
    says: 'tang, sss, tpm2, person, passphrase or null',
    optional: true,
  },
  {
    name: 'CONFIG',
    says: "the pin's configuration: JSON, @FILE, or - for standard input",
    optional: true,
    completes: 'file',
  },
]

export const policyOptions: readonly OptionSpec[] = [
  {
    flags: '--policy <FILE>',
    says: 'read PIN and CONFIG from a file: {"pin":"sss","config":{"t":2,"pins":{...}}}',
    completes: 'file',
  },
]
