// Lengths of time as options give them: 30s, 90m, 12h, 7d.
import { UsageError } from './command.ts';

const UNITS: Record<string, number> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Parses to milliseconds, or throws a {@link UsageError} that names the option. */
export function durationOption(name: string): (text: string) => number {
  return (text) => {
    const [, count, unit = ''] = /^(\d{1,9}(?:\.\d+)?)([smhd])$/.exec(text) ?? [];
    const ms = Math.round(Number(count) * (UNITS[unit] ?? Number.NaN));
    if (Number.isNaN(ms) || ms < 1_000)
      throw new UsageError(`${name} takes a time such as 30s, 90m, 12h or 7d, not "${text}".`);
    return ms;
  };
}
