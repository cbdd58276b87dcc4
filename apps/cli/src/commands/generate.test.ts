// `weft generate` beyond the likeliest token: sampling by its seed, where it stops, what it prints, and the adapter switched
// off and on.
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { parseModelConfig, writeAdapter } from '@weft/formats';
import { initialAdapter, plainSpec } from '@weft/trainer';
import { describe, expect, it } from 'vitest';
import { asset, commandLine } from '../testing.ts';
import { registerGenerate } from './generate.ts';

const { file, weft, document } = commandLine(registerGenerate);
const generate = (...options: string[]) => ['generate', '--model', asset('stories260K'), ...options];
const story = ['--prompt', 'Once upon a time', '--max-tokens', '12'];

/** An adapter that makes the model tell something else. */
async function writeStrongAdapter(): Promise<string> {
  const config = parseModelConfig(await readFile(asset('stories260K', 'config.json'), 'utf8'));
  const fresh = initialAdapter(config, plainSpec(2), 'strong');
  const matrices = [...fresh.matrices].map(
    ([module, own]) => [module, { ...own, b: own.b.map((_, i) => Math.sin(i)) }] as const,
  );
  await mkdir(file('strong'), { recursive: true });
  for (const [name, content] of Object.entries(writeAdapter({ ...fresh, matrices: new Map(matrices) })))
    await writeFile(file('strong', name), content);
  return file('strong');
}

describe('weft generate', () => {
  it('samples the same text for the same seed', async () => {
    const sample = (...options: string[]) => document(generate(...story, '--temperature', '1.2', ...options));
    const one = await sample('--seed', '1');
    expect((await sample('--seed', '1')).tokens).toEqual(one.tokens);
    const others = [await sample('--seed', '2'), await sample('--seed', '3')];
    expect(others.some(({ text }) => text !== one.text)).toBe(true);
    // One candidate is no choice.
    const greedy = await document(generate(...story));
    expect((await document(generate(...story, '--top-k', '1'))).tokens).toEqual(greedy.tokens);
    expect((await document(generate(...story, '--top-p', '0.0001'))).tokens).toEqual(greedy.tokens);
  });

  it('ends before a text or a token', async () => {
    const whole = await document(generate(...story));
    expect(whole.ended).toBe('max-tokens');
    const word: string = whole.text.trim().split(' ')[3];
    const stopped = await document(generate(...story, '--stop', 'no such text', '--stop', word));
    expect(stopped.ended).toBe('stop-string');
    expect(stopped.text).toBe(whole.text.slice(0, whole.text.indexOf(word)));
    const atToken = await document(generate(...story, '--stop-token', String(whole.tokens[5])));
    expect(atToken.ended).toBe('stop-token');
    expect(atToken.tokens).toEqual(whole.tokens.slice(0, whole.tokens.indexOf(whole.tokens[5])));
  });

  it('prints prompt and text on stdout, and the speed on stderr', async () => {
    const { text, tokensPerSecond } = await document(generate(...story));
    expect(tokensPerSecond).toBeGreaterThan(0);
    const { out, err, exitCode } = await weft(...generate(...story));
    expect([exitCode, out]).toEqual([0, `Once upon a time${text}\n`]);
    expect(err).toMatch(/^\n[\d.]+ tokens\/s\n$/);
  });

  it('compares the text without and with an adapter, from one load', async () => {
    const adapter = await writeStrongAdapter();
    const bare = await document(generate(...story));
    const adapted = await document(generate(...story, '--adapter', adapter));
    expect(adapted.text).not.toBe(bare.text);
    const both = await document(generate(...story, '--adapter', adapter, '--compare'));
    expect(both.without.tokens).toEqual(bare.tokens);
    expect(both.with.tokens).toEqual(adapted.tokens);
    const { out } = await weft(...generate(...story, '--adapter', adapter, '--compare'));
    expect(out).toBe(`── without the adapter ──\n${bare.text}\n── with the adapter ──\n${adapted.text}\n`);
  });

  it('puts a prompt into the chat template', async () => {
    const chat = file('chat');
    await cp(asset('stories260K'), chat, { recursive: true });
    const template =
      '{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}';
    await writeFile(`${chat}/chat_template.jinja`, template);
    const asked = await document([
      ...['generate', '--model', chat, '--chat', '--system', 'Be kind.', '--prompt', 'Hi', '--max-tokens', '4'],
    ]);
    const plain = 'system: Be kind.\nuser: Hi\nassistant:';
    const same = await document(generate('--prompt', plain, '--max-tokens', '4'));
    expect(asked.promptTokens).toEqual(same.promptTokens);
    expect(asked.tokens).toEqual(same.tokens);
    const none = await weft(...generate('--prompt', 'Hi', '--chat'));
    expect(none.exitCode).toBe(1);
    expect(none.err).toMatch(/without a chat template/);
  });

  it.each<[string, string[], RegExp]>([
    ['nothing to compare with', ['--prompt', 'a', '--compare'], /--compare needs --adapter/],
    ['a system without a chat', ['--prompt', 'a', '--system', 'b'], /--system is for --chat/],
    ['all of more than everything', ['--prompt', 'a', '--top-p', '1.5'], /--top-p must be at most 1/],
    ['a cold below zero', ['--prompt', 'a', '--temperature', '-1'], /--temperature must be at least 0/],
    ['a prompt beyond the context', ['--prompt', 'word '.repeat(600)], /the model's context holds 512/],
  ])('%s is exit code 2', async (_name, options, message) => {
    const { exitCode, out, err } = await weft(...generate(...options));
    expect([exitCode, out]).toEqual([2, '']);
    expect(err).toMatch(message);
  });
});
