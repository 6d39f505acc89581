/** `-m state`: the older form of `-m conntrack --ctstate`. */
import { defineMatch } from '../extension.ts';
import { formatStates, isInState, readOlderStates } from './states.ts';

interface StateOptions {
  states: number;
  isInverted: boolean;
}

export const state = defineMatch<StateOptions>({
  name: 'state',
  man: `state match options:
 [!] --state [INVALID|ESTABLISHED|NEW|RELATED|UNTRACKED][,...]
				State(s) to match
`,
  needsConntrack: () => true,
  init: () => ({ states: 0, isInverted: false }),
  options: [
    {
      name: 'state',
      canInvert: true,
      isRequired: true,
      read: (o, text, isInverted) => {
        o.states = readOlderStates(text);
        o.isInverted = isInverted;
      },
    },
  ],
  save: (o) => [...(o.isInverted ? ['!'] : []), '--state', formatStates(o.states)],
  list: (o) => `${o.isInverted ? '! ' : ''}state ${formatStates(o.states)}`,
  compile: ({ states, isInverted }) => {
    return (p, { conditions }) => isInState(p, conditions.tracking!, states) !== isInverted;
  },
});
