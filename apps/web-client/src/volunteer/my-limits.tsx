// The volunteer's own caps. They hold from the next round on, and on this browser's next visit.
import { type Signal, useSignal } from '@preact/signals';
import type { TabState } from '../worker/api.ts';
import { limits, setLimits } from './tab-link.ts';
import { type LimitTexts, limitTexts, readLimits } from './words.ts';

const FIELDS: readonly { key: keyof LimitTexts; label: string; unit: string }[] = [
  { key: 'memory', label: 'GPU memory', unit: 'MB' },
  { key: 'rank', label: 'Largest rank', unit: '' },
  { key: 'upload', label: 'Upload per round', unit: 'MB' },
];

export function MyLimits({ state, open }: { state: TabState | null; open: Signal<boolean> }) {
  const texts = useSignal<LimitTexts>(limitTexts(limits.value));
  const errors = useSignal<Partial<Record<keyof LimitTexts, string>>>({});
  const said = useSignal<string | null>(null);
  const submit = async () => {
    const read = readLimits(texts.value);
    said.value = null;
    if ('errors' in read) {
      errors.value = read.errors;
      return;
    }
    errors.value = {};
    await setLimits(read.limits);
    said.value = state?.lease ? 'These limits hold from the next round on.' : 'These limits hold now.';
  };
  return (
    <details
      class="limits"
      open={open.value}
      onToggle={(event) => {
        open.value = event.currentTarget.open;
      }}
    >
      <summary>My limits</summary>
      <form
        noValidate
        aria-label="My limits"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <div class="limit-fields">
          {FIELDS.map(({ key, label, unit }) => (
            <div class="field" key={key}>
              <label for={`limit-${key}`}>{label}</label>
              <span class="with-unit">
                <input
                  id={`limit-${key}`}
                  type="text"
                  inputMode="decimal"
                  autocomplete="off"
                  placeholder="no limit"
                  value={texts.value[key]}
                  aria-invalid={errors.value[key] ? 'true' : undefined}
                  aria-describedby={errors.value[key] ? `limit-${key}-error` : undefined}
                  onInput={(event) => {
                    texts.value = { ...texts.value, [key]: event.currentTarget.value };
                  }}
                />
                {unit && <span class="quiet small">{unit}</span>}
              </span>
              {errors.value[key] && (
                <span class="field-error" id={`limit-${key}-error`}>
                  {errors.value[key]}
                </span>
              )}
            </div>
          ))}
        </div>
        <div class="buttons">
          <button type="submit" class="button">
            Apply
          </button>
          {said.value && <p class="small quiet">{said.value}</p>}
        </div>
      </form>
    </details>
  );
}
