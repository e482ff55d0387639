import type { CommandSpec } from './command.ts'

const actions = () => import('./help-actions.ts')

/** `holdfast completion` */
export const completionCommand: CommandSpec = {
  name: 'completion',
  summary: 'print a completion script for a shell',
  about: ['Generated from the commands themselves; completing starts no program.'],
  arguments: [{ name: 'SHELL', says: 'the shell', choices: ['bash', 'zsh', 'fish'] }],
  examples: [
    { says: 'bash, for this session', run: 'source <(holdfast completion bash)' },
    {
      says: 'fish, for good',
      run: 'holdfast completion fish > ~/.config/fish/completions/holdfast.fish',
    },
    { says: 'zsh, after compinit', run: 'source <(holdfast completion zsh)' },
  ],
  exits: { usage: 'the shell is not known' },
  related: ['help'],
  load: async () => (await actions()).completionAction,
}

/** `holdfast help` */
export const helpCommand: CommandSpec = {
  name: 'help',
  summary: 'show the help of a command, or a topic',
  about: ['Topics: exit-codes.'],
  arguments: [
    { name: 'WORD', says: 'the words of a command, or a topic', optional: true, repeat: true },
  ],
  examples: [
    { says: 'what every exit code means', run: 'holdfast help exit-codes' },
    { says: 'the same as --help', run: 'holdfast help vault bind' },
  ],
  exits: { usage: 'there is no such command or topic' },
  load: async () => (await actions()).helpAction,
}
