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
    says: "the holder's private key, PEM, RSA; required unless it is in a token",
    completes: 'file',
  },
  {
    flags: '--key-passphrase-file <FILE>',
    says: 'passphrase of the private key; - is standard input',
    completes: 'file',
  },
]

/** For a key in a token: docs/operator/holders.md has the commands between these. */
export const holderTokenOptions: readonly OptionSpec[] = [
  {
    flags: '--wrapped <FILE>',
    says: 'token: write the wrapped share to FILE, to be decrypted there',
    completes: 'file',
  },
  {
    flags: '--raw-block <FILE>',
    says: 'token: what it decrypted without padding (CKM_RSA_X_509); the padding is taken off here',
    completes: 'file',
  },
  {
    flags: '--share <FILE>',
    says: 'token: the share, where the token itself does OAEP with SHA-256',
    completes: 'file',
  },
  {
    flags: '--to-sign <FILE>',
    says: 'token: write the whole statement to FILE, to be signed there',
    completes: 'file',
  },
  {
    flags: '--signature <FILE>',
    says: 'token: the signature that it made of that file (CKM_SHA256_RSA_PKCS)',
    completes: 'file',
  },
]
