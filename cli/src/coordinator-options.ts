import type { ArgumentSpec, OptionSpec } from './command.ts'

// Options that the commands about a coordinator share.

/** Which coordinator is meant; the default is the one that was logged in to. */
export const placeOptions: readonly OptionSpec[] = [
  {
    flags: '--coordinator <URL>',
    says: 'address of the coordinator; default the one that was logged in to',
  },
  {
    flags: '--identity <DIGEST>',
    says: 'its identity, as serve prints it; default the one that was logged in to, or asked for at the terminal',
  },
]

export const userOptions: readonly OptionSpec[] = [
  { flags: '--user <NAME>', says: 'name of the user', default: 'admin' },
  {
    flags: '--password-file <FILE>',
    says: 'the password, at least 12 letters; - is standard input; default asked for at the terminal',
    completes: 'file',
  },
]

export const storeOption: OptionSpec = {
  flags: '--store <WHERE>',
  says: 'sqlite, in the directory, or a file with the addresses of PostgreSQL, one a line, as they may hold a password',
  default: 'sqlite',
  completes: 'file',
}

export const ceremonyOption: OptionSpec = {
  flags: '--ceremony <ID>',
  says: 'the ceremony; default the one that is open',
}

export const holderArgument: ArgumentSpec = {
  name: 'NAME',
  says: "the holder's name, as the manifest has it",
}

export const holderKeyOptions: readonly OptionSpec[] = [
  {
    flags: '--key <FILE>',
    says: "the holder's private key, PEM, RSA; required",
    completes: 'file',
  },
  {
    flags: '--key-passphrase-file <FILE>',
    says: 'passphrase of the private key; - is standard input',
    completes: 'file',
  },
]
