import type { DataRow } from '@weft/formats';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { ChatMessage } from '../model/chat-template.ts';
import {
  byteLevelTokenizer,
  CHATML,
  LLAMA3,
  MISTRAL,
  STORIES_VOCABULARY,
  storiesTokenizer,
} from '../model/test-tokenizers.ts';
import type { TextTokenizer } from '../model/tokenizer.ts';
import { type EncodeOptions, type Example, encodeRows } from './examples.ts';
import { chatPromptTokens, questionOf } from './prompts.ts';

const user = (content: string): ChatMessage => ({ role: 'user', content });
const assistant = (content: string): ChatMessage => ({ role: 'assistant', content });
const system = (content: string): ChatMessage => ({ role: 'system', content });
const failure = (code: string) => expect.objectContaining({ name: 'TrainerError', code });

const rowOf = (messages: readonly ChatMessage[]): DataRow => ({ kind: 'chat', messages });
const encode = (
  tokenizer: TextTokenizer,
  messages: readonly ChatMessage[],
  length = 4096,
  options: EncodeOptions = {},
) => encodeRows([rowOf(messages)], { config: { vocabSize: STORIES_VOCABULARY }, tokenizer }, length, options);
const only = (tokenizer: TextTokenizer, ...rest: [readonly ChatMessage[], number?, EncodeOptions?]): Example => {
  const [example] = encode(tokenizer, ...rest).examples;
  if (!example) throw new Error('the conversation gave no example');
  return example;
};
/** The labelled parts as text, special tokens by name. */
function labelledTexts(tokenizer: TextTokenizer, { inputIds, labels }: Example): string[] {
  const runs: number[][] = [];
  for (const [t, id] of inputIds.entries()) {
    if (labels[t] === -100) continue;
    expect(labels[t]).toBe(id);
    const run = t > 0 && labels[t - 1] !== -100 ? runs.at(-1) : undefined;
    if (run) run.push(id);
    else runs.push([id]);
  }
  return runs.map((ids) => tokenizer.decodeWithin(ids));
}

const talk = [system('be brief'), user('the cat?'), assistant('sat'), user('and the dog?'), assistant('ran away')];
const plainTalk = talk.slice(1);

describe('conversations', () => {
  let chatml: TextTokenizer;
  let llama3: TextTokenizer;
  let mistral: TextTokenizer;
  beforeAll(async () => {
    chatml = await storiesTokenizer(['<|im_start|>', '<|im_end|>'], {
      chat_template: CHATML,
      eos_token: '<|im_end|>',
      add_bos_token: false,
    });
    llama3 = await storiesTokenizer(['<|head|>', '<|/head|>', '<|eot|>'], { chat_template: LLAMA3 });
    mistral = await storiesTokenizer([], { chat_template: MISTRAL });
  });

  it('label what the assistant says and its end of turn, and nothing else', () => {
    expect(labelledTexts(chatml, only(chatml, talk)).map((text) => text.trim())).toEqual([
      'sat<|im_end|>',
      'ran away<|im_end|>',
    ]);
    expect(labelledTexts(llama3, only(llama3, talk)).map((text) => text.trim())).toEqual([
      'sat<|eot|>',
      'ran away<|eot|>',
    ]);
    expect(labelledTexts(mistral, only(mistral, plainTalk)).map((text) => text.trim())).toEqual([
      'sat</s>',
      'ran away</s>',
    ]);
  });

  it('are the tokens of the whole text up to the last end of turn, BOS once or not at all', () => {
    for (const [tokenizer, messages] of [
      [chatml, talk],
      [llama3, talk],
      [mistral, plainTalk],
    ] as const) {
      const text = tokenizer.chatTemplate?.render(messages) ?? '';
      const { inputIds } = only(tokenizer, messages);
      expect(inputIds).toEqual(tokenizer.encode(text.trimEnd()));
      expect(inputIds.filter((id) => id === 1)).toHaveLength(tokenizer === chatml ? 0 : 1);
    }
    expect([llama3.bos, mistral.bos, chatml.bos]).toEqual([1, 1, null]);
  });

  it('begin an answer after exactly the tokens that generation is given', () => {
    for (const tokenizer of [chatml, llama3, mistral]) {
      const { inputIds, labels } = only(tokenizer, plainTalk);
      const first = labels.findIndex((label) => label !== -100);
      expect(inputIds.slice(0, first)).toEqual(chatPromptTokens(tokenizer, plainTalk.slice(0, 1)));
      const question = questionOf(rowOf(plainTalk), { tokenizer });
      expect(question).toMatchObject({ input: 'and the dog?', reference: 'ran away' });
      expect(inputIds.slice(0, question?.promptIds.length)).toEqual(question?.promptIds);
      expect(labels[question?.promptIds.length ?? 0]).not.toBe(-100);
      expect(labels[(question?.promptIds.length ?? 0) - 1]).toBe(-100);
    }
  });

  it('are tokenised in parts where a token would straddle the seam', () => {
    // The bytes of " the" are one token, but the prompt ends in the space.
    const tokenizer = byteLevelTokenizer(['<|end|>'], {
      chat_template:
        '{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}' +
        '{% if add_generation_prompt %}assistant: {% endif %}',
    });
    const example = only(tokenizer, [user('q'), assistant('the'), user('q'), assistant('the')]);
    expect(labelledTexts(tokenizer, example)).toEqual(['the<|end|>', 'the<|end|>']);
    expect(example.inputIds).not.toContain(258);
    const first = example.labels.findIndex((label) => label !== -100);
    expect(example.inputIds.slice(0, first)).toEqual(chatPromptTokens(tokenizer, [user('q')]));
  });

  it('label the same text whatever is said', () => {
    const content = fc.string({ unit: fc.constantFrom(...'the cat sat.\n é'), minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(fc.array(content, { minLength: 2, maxLength: 6 }), (contents) => {
        const messages = contents.map((text, i) => (i % 2 === 0 ? user(text) : assistant(text)));
        const answers = messages.filter(({ role }) => role === 'assistant').map((message) => message.content);
        const texts = labelledTexts(chatml, only(chatml, messages));
        expect(texts).toEqual(answers.map((answer) => `${answer}<|im_end|>`));
      }),
    );
  });

  it('learn the last turn alone when asked', () => {
    const example = only(chatml, talk, 4096, { assistantTurns: 'last' });
    expect(labelledTexts(chatml, example).map((text) => text.trim())).toEqual(['ran away<|im_end|>']);
    expect(example.inputIds).toEqual(only(chatml, talk).inputIds);
  });

  it('leave out what follows the last answer, and conversations without one', () => {
    expect(only(chatml, [...talk, user('and?')])).toEqual(only(chatml, talk));
    const rows = [rowOf([user('hello')]), rowOf(talk)];
    const { examples, unlabelled } = encodeRows(
      rows,
      { config: { vocabSize: STORIES_VOCABULARY }, tokenizer: chatml },
      4096,
    );
    expect([examples.length, unlabelled]).toEqual([1, 1]);
    expect(questionOf(rowOf([user('hello')]), { tokenizer: chatml })).toBeNull();
  });

  it('too long lose their oldest turns, never the system message', () => {
    const long = [...talk, user('why?'), assistant('who knows')];
    const [head, ...rest] = long;
    if (!head) throw new Error('no system message');
    const lengthOf = (messages: readonly ChatMessage[]) => only(llama3, messages).inputIds.length;
    const whole = lengthOf(long);
    expect(encode(llama3, long, whole)).toMatchObject({ truncated: 0 });
    for (const dropped of [2, 4]) {
      const kept = [head, ...rest.slice(dropped)];
      const { examples, truncated } = encode(llama3, long, lengthOf(kept));
      expect(examples).toEqual([only(llama3, kept)]);
      expect(truncated).toBe(1);
    }
    const barely = encode(llama3, long, whole - 1);
    expect(barely.examples).toEqual([only(llama3, [head, ...rest.slice(2)])]);
  });

  it('of one exchange too long lose its prompt from the left, then the answer’s tail', () => {
    const one = [user('the cat sat on the mat and looked'), assistant('at the dog')];
    const whole = only(llama3, one);
    const answer = whole.labels.findIndex((label) => label !== -100);
    const { examples, truncated } = encode(llama3, one, whole.inputIds.length - 3);
    expect(truncated).toBe(1);
    expect(examples[0]?.inputIds).toEqual([1, ...whole.inputIds.slice(4)]);
    const tight = encode(llama3, one, 4).examples[0];
    expect(tight?.inputIds).toEqual([1, ...whole.inputIds.slice(answer, answer + 3)]);
    expect(tight?.targets).toBe(3);
  });

  it('are refused by name where the template cannot serve them', async () => {
    const bare = await storiesTokenizer();
    expect(() => encode(bare, talk)).toThrow(failure('no-chat-template'));
    expect(() => encode(mistral, [assistant('first')])).toThrow(failure('chat-template'));
    expect(() => encode(mistral, [assistant('first')])).toThrow(/^Row 1: .*roles must alternate/);
    // As Qwen 3 does: what was thought is written in the last answer alone.
    const forgetful = await storiesTokenizer([], {
      chat_template:
        '{% for m in messages %}[{{ m.role }}]{% if loop.last and m.role == "assistant" %}(thought){% endif %}' +
        '{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}',
    });
    expect(() => encode(forgetful, talk)).toThrow(failure('chat-template'));
    expect(() => encode(forgetful, talk)).toThrow(/Row 1: .*answer 1 .*assistantTurns: last/);
    const last = only(forgetful, talk, 4096, { assistantTurns: 'last' });
    expect(labelledTexts(forgetful, last)).toEqual(['(thought)ran away']);
    // A prompt that is no beginning of what follows it cannot be used at all.
    const other = await storiesTokenizer([], {
      chat_template: '{% if add_generation_prompt %}asked{% else %}told{% endif %}',
    });
    expect(() => encode(other, talk, 4096, { assistantTurns: 'last' })).toThrow(/prompt.*completion/);
  });
});
