/** `-m comment`: words for the reader of the rules; it matches everything. */
import { defineMatch } from '../extension.ts';

/** Bytes, XT_MAX_COMMENT_LEN with its final zero. */
const LONGEST = 255;

interface CommentOptions {
  text: string;
}

export const comment = defineMatch<CommentOptions>({
  name: 'comment',
  man: `comment match options:
--comment COMMENT             Attach a comment to a rule
`,
  init: () => ({ text: '' }),
  options: [
    {
      name: 'comment',
      isRequired: true,
      isText: true,
      read: (o, text) => {
        o.text = cut(text);
      },
    },
  ],
  save: (o) => ['--comment', o.text],
  list: (o) => `/* ${o.text} */`,
  compile: () => () => true,
});

/** A longer text is cut, between characters. */
function cut(text: string): string {
  let bytes = 0;
  let end = 0;
  for (const character of text) {
    bytes += new TextEncoder().encode(character).length;
    if (bytes > LONGEST) return text.slice(0, end);
    end += character.length;
  }
  return text;
}
