/** `-j NOTRACK`: connection tracking does not see the packet; the older word for `-j CT --notrack`. */
import { defineTarget } from '../extension.ts';
import { untrack } from './ct.ts';

export const notrack = defineTarget<null>({
  name: 'NOTRACK',
  man: 'NOTRACK does not take any options\n',
  listName: 'CT',
  init: () => null,
  options: [],
  isLegal: (_o, _header, { table }) => table === 'raw',
  save: () => [],
  list: () => 'NOTRACK',
  compile: () => untrack,
});
