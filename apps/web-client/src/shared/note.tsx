// An error as a person reads it: what happened, what was kept, what to do; the code is in the details and can be copied.
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';

/** Something that went wrong, ready to be shown. `technical` is what a bug report needs. */
export interface Problem {
  readonly tone: 'error' | 'warning';
  readonly happened: string;
  /** What was kept, in a sentence; null where there was nothing to lose. */
  readonly kept: string | null;
  readonly remedy: string | null;
  readonly code: string;
  readonly technical: string;
}

export function ProblemNote({ problem, children }: { problem: Problem; children?: ComponentChildren }) {
  // What happened stands out; what the sender says beside it reads on.
  const [first = problem.happened] = /^.*?[.:](?=\s)/s.exec(problem.happened) ?? [];
  const rest = problem.happened.slice(first.length);
  return (
    <section
      class={`note ${problem.tone}`}
      role={problem.tone === 'error' ? 'alert' : undefined}
      aria-label={problem.tone === 'error' ? 'Error' : 'Notice'}
      data-testid="problem"
      data-code={problem.code}
    >
      <p>
        <strong>{first}</strong>
        {rest}
        {problem.kept && <> {problem.kept}</>}
        {problem.remedy && <> {problem.remedy}</>}
      </p>
      {children && <div class="buttons">{children}</div>}
      <details>
        <summary>details</summary>
        <Copyable text={`${problem.code}\n${problem.technical}`} />
      </details>
    </section>
  );
}

/** Text in the mono font with a button that copies it. */
export function Copyable({ text, label = 'Copy' }: { text: string; label?: string }) {
  const done = useSignal<'no' | 'yes' | 'refused'>('no');
  const copy = () => {
    // The clipboard may be refused, and does not exist on insecure pages; the text can then be selected by hand.
    const writing = navigator.clipboard?.writeText(text) ?? Promise.reject(new Error('no clipboard'));
    writing.then(
      () => {
        done.value = 'yes';
      },
      () => {
        done.value = 'refused';
      },
    );
  };
  return (
    <div class="copyable">
      <pre>{text}</pre>
      <button type="button" class="button small" onClick={copy}>
        {{ no: label, yes: 'Copied', refused: 'Select it by hand' }[done.value]}
      </button>
    </div>
  );
}
