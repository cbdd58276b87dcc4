// Light, dark, or as the system has it. The choice is kept in this browser; public/theme.js applies it before first paint.
import { signal } from '@preact/signals';

type Theme = 'system' | 'light' | 'dark';
const KEY = 'weft-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

function kept(): Theme {
  const { theme } = document.documentElement.dataset;
  return theme === 'light' || theme === 'dark' ? theme : 'system';
}

const theme = signal<Theme>(kept());

/** Whether the page is dark now. Charts draw on a canvas and must be told. */
export const dark = signal(isDark());

function isDark(): boolean {
  return theme.value === 'dark' || (theme.value === 'system' && system.matches);
}

system.addEventListener('change', () => {
  dark.value = isDark();
});

function choose(next: Theme): void {
  theme.value = next;
  if (next === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  dark.value = isDark();
  try {
    if (next === 'system') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, next);
  } catch {
    // Storage is switched off in this browser: the choice holds for this visit.
  }
}

const NEXT: Record<Theme, Theme> = { system: 'light', light: 'dark', dark: 'system' };
const LABEL: Record<Theme, string> = { system: 'Auto', light: 'Light', dark: 'Dark' };

export function ThemeSwitch() {
  return (
    <button
      type="button"
      class="button quiet theme-switch"
      onClick={() => choose(NEXT[theme.value])}
      aria-label={`Colours: ${LABEL[theme.value]}. Change to ${LABEL[NEXT[theme.value]]}`}
    >
      <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
        <circle cx="8" cy="8" r="6.25" fill="none" stroke="currentColor" stroke-width="1.5" />
        <path
          d={
            theme.value === 'light'
              ? ''
              : theme.value === 'dark'
                ? 'M8 2a6 6 0 1 1 0 12a6 6 0 1 1 0-12Z'
                : 'M8 2a6 6 0 0 1 0 12Z'
          }
          fill="currentColor"
        />
      </svg>
      <span>{LABEL[theme.value]}</span>
    </button>
  );
}
