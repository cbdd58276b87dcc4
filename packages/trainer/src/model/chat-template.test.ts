import { describe, expect, it } from 'vitest';
import { chatTemplate } from './chat-template.ts';
import { CHATML, LLAMA3, MISTRAL } from './test-tokenizers.ts';

const tokens = { bos_token: '<s>', eos_token: '</s>' };
const user = { role: 'user', content: 'hi ' };
const assistant = { role: 'assistant', content: 'ho' };
const render = (source: string, ...args: Parameters<ReturnType<typeof chatTemplate>['render']>) =>
  chatTemplate(source, tokens).render(...args);

describe('chat templates', () => {
  it('write conversations in the styles of ChatML, Llama 3 and Mistral', () => {
    const ask = { addGenerationPrompt: true };
    expect(render(CHATML, [user], ask)).toBe('<|im_start|>user\nhi <|im_end|>\n<|im_start|>assistant\n');
    expect(render(LLAMA3, [user, assistant])).toBe(
      '<s><|head|>user<|/head|>\n\nhi<|eot|><|head|>assistant<|/head|>\n\nho<|eot|>',
    );
    expect(render(MISTRAL, [user, assistant, user], ask)).toBe('<s>[INST] hi  [/INST] ho</s>[INST] hi  [/INST]');
  });

  it('trim blocks as Hugging Face does', () => {
    expect(render('{% for m in messages %}\n  {% if true %}\nx{% endif %}\n{% endfor %}\ny', [user])).toBe('xy');
  });

  it('see neither tools nor documents, and may count', () => {
    const source =
      '{% if tools is not none or documents %}no{% endif %}{% for i in range(1, 7, 2) %}{{ i }}{% endfor %}';
    expect(render(source, [])).toBe('135');
    expect(render('{{ range(3) | length }}', [])).toBe('3');
  });

  it('tell the same date always, in English', () => {
    const source = '{{ strftime_now("%d %b %Y|%B|%A|%y-%m %H:%M%%") }}';
    expect(render(source, [])).toBe('26 Jul 2024|July|Friday|24-07 00:00%');
    expect(new Date(Date.UTC(2024, 6, 26)).getUTCDay()).toBe(5);
  });

  it('give their reason when they refuse, or cannot be read', () => {
    const failure = expect.objectContaining({ name: 'TrainerError', code: 'chat-template' });
    expect(() => render(MISTRAL, [assistant])).toThrow(failure);
    expect(() => render(MISTRAL, [assistant])).toThrow(/roles must alternate/);
    expect(() => render('{% if %}', [user])).toThrow(failure);
    expect(() => render('{{ strftime_now("%j") }}', [])).toThrow(/%j/);
    // Reading waits for use: a model whose template is beyond us serves plain text.
    expect(() => chatTemplate('{% if %}', tokens)).not.toThrow();
  });
});
