// The form for a new run, drawn from run-form.ts. Messages stand by their fields; the first one at fault gets the focus.
import { type Signal, useSignal } from '@preact/signals';
import { PROJECTIONS } from '@weft/protocol';
import { useRef } from 'preact/hooks';
import {
  type FormErrors,
  type FormValues,
  initialValues,
  isShown,
  readForm,
  SECTIONS,
  type TextField,
} from './run-form.ts';
import { busy, createRun, overview } from './store.ts';

interface FieldProps {
  readonly field: TextField;
  readonly values: Signal<FormValues>;
  readonly error: string | undefined;
}

export function NewRun() {
  const tasks = overview.value?.tasks ?? [];
  const values = useSignal<FormValues>(initialValues(tasks.map((task) => task.name)));
  const errors = useSignal<FormErrors>({});
  const form = useRef<HTMLFormElement>(null);

  const submit = async () => {
    const result = readForm(values.value);
    if ('errors' in result) {
      errors.value = result.errors;
      // A shut section would hide what is wrong in it.
      for (const section of form.current?.querySelectorAll('details') ?? []) {
        if (
          section.querySelector(
            Object.keys(result.errors)
              .map((key) => `#field-${key}`)
              .join(','),
          )
        )
          section.open = true;
      }
      const first = SECTIONS.flatMap((section) => section.fields).find((field) => result.errors[field.key]);
      if (first) form.current?.querySelector<HTMLElement>(`#field-${first.key}, #field-${first.key} input`)?.focus();
      return;
    }
    errors.value = {};
    await createRun(result.settings);
  };

  return (
    <section class="new-run">
      <h1>New run</h1>
      <p class="quiet">
        Trains an adapter for {overview.value?.model.name}. Nothing starts before you press Start on the run’s page.
      </p>
      <form
        ref={form}
        noValidate
        aria-label="New run"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        {SECTIONS.map((section) => {
          const fields = (
            <div class="fields">
              {section.fields
                .filter((field) => isShown(field, values.value))
                .map((field) => (
                  <Field key={field.key} field={field} values={values} error={errors.value[field.key]} />
                ))}
            </div>
          );
          if (section.advanced) {
            return (
              <details key={section.title} class="section">
                <summary>{section.title}</summary>
                {fields}
              </details>
            );
          }
          return (
            <fieldset key={section.title} class="section">
              <legend>{section.title}</legend>
              {fields}
            </fieldset>
          );
        })}
        <div class="buttons">
          <button type="submit" class="button primary" disabled={busy.value === 'create'}>
            Create run
          </button>
          {Object.keys(errors.value).length > 0 && (
            <p class="field-error" role="status">
              {Object.keys(errors.value).length === 1
                ? 'One field needs'
                : `${Object.keys(errors.value).length} fields need`}{' '}
              another look.
            </p>
          )}
        </div>
      </form>
    </section>
  );
}

function Field({ field, values, error }: FieldProps) {
  const id = `field-${field.key}`;
  const value = values.value[field.key];
  const described = [error ? `${id}-error` : '', field.hint ? `${id}-hint` : ''].filter(Boolean).join(' ');
  const set = (next: string | boolean | readonly string[]) => {
    values.value = { ...values.value, [field.key]: next };
  };
  const message = error && (
    <span class="field-error" id={`${id}-error`}>
      {error}
    </span>
  );
  const hint = field.hint && (
    <span class="hint" id={`${id}-hint`}>
      {field.hint}
    </span>
  );
  const common = {
    id,
    'aria-describedby': described || undefined,
    'aria-invalid': error ? ('true' as const) : undefined,
  };
  switch (field.input) {
    case 'checkbox':
      return (
        <div class="field wide">
          <label class="choice">
            <input
              type="checkbox"
              {...common}
              checked={value === true}
              onChange={(event) => set(event.currentTarget.checked)}
            />
            {field.label}
          </label>
          {hint}
          {message}
        </div>
      );
    case 'choice':
      return (
        <div class={`field ${widthOf(field)}`}>
          <label for={id}>{field.label}</label>
          <select {...common} value={String(value)} onChange={(event) => set(event.currentTarget.value)}>
            {field.choices?.map(([key, label]) => (
              <option key={key} value={key}>
                {label}
              </option>
            ))}
          </select>
          {hint}
          {message}
        </div>
      );
    case 'tasks':
    case 'targets':
      return <Several field={field} values={values} error={error} />;
    default:
      return (
        <div class={`field ${widthOf(field)}`}>
          <label for={id}>{field.label}</label>
          <span class="with-unit">
            <input
              {...common}
              type="text"
              inputMode={field.input === 'text' ? 'text' : field.input === 'ranks' ? 'text' : 'decimal'}
              autocomplete="off"
              value={String(value)}
              onInput={(event) => set(event.currentTarget.value)}
            />
            {field.unit && <span class="quiet small">{field.unit}</span>}
          </span>
          {hint}
          {message}
        </div>
      );
  }
}

/** Ticks for the served tasks, or for the projections. */
function Several({ field, values, error }: FieldProps) {
  const id = `field-${field.key}`;
  const value = values.value[field.key];
  const chosen = Array.isArray(value) ? (value as readonly string[]) : [];
  const tasks = overview.value?.tasks ?? [];
  const options =
    field.input === 'tasks'
      ? tasks.map((task) => ({ name: task.name, label: task.title, about: task.definition }))
      : PROJECTIONS.map((name) => ({ name: name as string, label: name as string, about: '' }));
  const toggle = (name: string, on: boolean) => {
    // In the order offered, whatever the order of clicks.
    const next = options.map((option) => option.name).filter((each) => (each === name ? on : chosen.includes(each)));
    values.value = { ...values.value, [field.key]: next };
  };
  return (
    <fieldset class="field wide" id={id} aria-describedby={error ? `${id}-error` : undefined}>
      <legend class="small">{field.label}</legend>
      <div class="ticks">
        {options.map((option) => (
          <label key={option.name} class="choice" title={option.about}>
            <input
              type="checkbox"
              checked={chosen.includes(option.name)}
              onChange={(event) => toggle(option.name, event.currentTarget.checked)}
            />
            {option.label}
          </label>
        ))}
      </div>
      {error && (
        <span class="field-error" id={`${id}-error`}>
          {error}
        </span>
      )}
    </fieldset>
  );
}

function widthOf({ key, input }: TextField): string {
  if (key === 'purpose' || key === 'strategy' || key === 'mode') return 'wide';
  return key === 'name' || key === 'operator' || input === 'ranks' ? 'half' : '';
}
