import type { ArgumentSpec, OptionSpec } from './command.ts'

// Options that several commands share. This file is loaded at every start and imports nothing heavy.

export const keyPassphraseOption: OptionSpec = {
  flags: '--key-passphrase-file <FILE>',
  says: 'passphrase of the private keys; - is standard input',
  completes: 'file',
}

export const shareOption: OptionSpec = {
  flags: '--share <NAME=FILE>',
  says: "a holder's unwrapped share: the 32 bytes that openssl pkeyutl wrote, or their base64",
  repeat: true,
  completes: 'file',
}

/** How a holder takes part in opening: with the key itself, or with a share unwrapped elsewhere. */
export const holderOptions: readonly OptionSpec[] = [
  {
    flags: '--holder-key <NAME=FILE>',
    says: "a holder's private key, PEM; a passphrase is asked for when it has one",
    repeat: true,
    completes: 'file',
  },
  keyPassphraseOption,
  shareOption,
]

const timeoutOption: OptionSpec = {
  flags: '--timeout <SECONDS>',
  says: 'how long one pin may take, in seconds',
  default: '10',
}

/** Options of every command that opens a sealed secret. */
export const openingOptions: readonly OptionSpec[] = [
  ...holderOptions,
  {
    flags: '--passphrase-file <FILE>',
    says: 'the passphrase of a passphrase pin; - is standard input',
    completes: 'file',
  },
  timeoutOption,
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

export const deviceArgument: ArgumentSpec = {
  name: 'DEVICE',
  says: 'a LUKS2 block device or image file',
  completes: 'file',
}

/** Options of every command about one volume. */
export const volumeOptions: readonly OptionSpec[] = [
  { flags: '--header <FILE>', says: 'the detached header, if it is apart', completes: 'file' },
]

/** How a command that changes a volume gets in, beside what its bindings open. */
export const accessOptions: readonly OptionSpec[] = [
  {
    flags: '--passphrase-file <FILE>',
    says: 'a passphrase that opens the volume; one final newline is dropped; - is standard input',
    completes: 'file',
  },
  {
    flags: '--key-file <FILE>',
    says: 'the same as the exact bytes of a file, as cryptsetup takes it',
    completes: 'file',
  },
  { flags: '--ask', says: 'ask for a passphrase of the volume at the terminal' },
]

/** Pins of a volume's bindings. */
export const bindingOptions: readonly OptionSpec[] = [
  ...holderOptions,
  {
    flags: '--pin-passphrase-file <FILE>',
    says: 'the passphrase of a passphrase pin; - is standard input',
    completes: 'file',
  },
  timeoutOption,
]

/** The header backup that follows each change. */
export const backupOptions: readonly OptionSpec[] = [
  {
    flags: '--backup-policy <FILE>',
    says: 'policy that the header backup after the change is sealed to; default the holders of the recovery slot',
    completes: 'file',
  },
  { flags: '--without-backup', says: 'make no header backup after the change' },
]

export const keyslotOption: OptionSpec = {
  flags: '--keyslot <NUMBER>',
  says: 'the keyslot, 0 to 31, as holdfast vault list shows it',
}

/** Options that every command has. */
export const commonOptions: readonly OptionSpec[] = [
  { flags: '--json', says: 'print one JSON object or array on standard output' },
  { flags: '--unattended', says: 'ask nobody anything, even when a terminal is there' },
  {
    flags: '--state-dir <DIR>',
    says: 'where records, proofs and journals are kept; default /var/lib/holdfast for root, else ~/.local/state/holdfast',
    completes: 'directory',
  },
]
