// Numbers as people read them, the same on both pages. Every figure carries its unit; MB is 10⁶ bytes.

const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** What stands where a figure is not known yet. */
export const UNKNOWN = '–';

/** `41,200` */
export const count = (value: number): string => grouped.format(value);

/** `1 round`, `3 rounds`; `plural` where an s does not do. */
export function quantity(value: number, noun: string, plural = `${noun}s`): string {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/** `840 bytes`, `55.9 kB`, `4.9 MB`, `210 MB`, `1.4 GB` */
export function bytes(value: number): string {
  if (value < 1_000) return quantity(Math.round(value), 'byte');
  const units = ['kB', 'MB', 'GB', 'TB'];
  let scaled = value / 1_000;
  let unit = 0;
  // 999.6 kB would be written 1000 kB.
  while (scaled >= 999.5 && unit < units.length - 1) {
    scaled /= 1_000;
    unit += 1;
  }
  const digits = scaled < 99.95 ? 1 : 0;
  return `${scaled.toFixed(digits)} ${units[unit] ?? ''}`;
}

/** `0.4 s`, `12 s`, `1 min 20 s`, `2 h 5 min` */
export function duration(ms: number): string {
  const seconds = Math.max(0, ms) / 1_000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return join(Math.floor(whole / 60), 'min', whole % 60, 's');
  const minutes = Math.round(whole / 60);
  return join(Math.floor(minutes / 60), 'h', minutes % 60, 'min');
}

function join(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}

/** Time left, as a clock: `0:48`, `12:05`, `1:02:05` */
export function countdown(ms: number): string {
  const whole = Math.ceil(Math.max(0, ms) / 1_000);
  const two = (value: number) => String(value).padStart(2, '0');
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3_600);
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** `now`, `12 s ago`, `3 min ago` */
export function ago(ms: number): string {
  if (ms < 2_000) return 'now';
  if (ms < 60_000) return `${Math.round(ms / 1_000)} s ago`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min ago`;
  return `${Math.round(ms / 3_600_000)} h ago`;
}

/** Nats per target token: `2.874` */
export const loss = (value: number | null): string => (value === null ? UNKNOWN : value.toFixed(3));

/** `1,830 tokens/s` */
export const tokenSpeed = (value: number | null): string => (value === null ? UNKNOWN : `${count(value)} tokens/s`);

/** `40 %` */
export const share = (value: number): string => `${Math.round(value * 100)} %`;

/** A singular value or another figure of unknown size: three significant digits. */
export function significant(value: number): string {
  const plain = value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5);
  // 1.00e-4 is 1e-4: the zeros say nothing that three digits do not.
  return plain ? String(Number(value.toPrecision(3))) : value.toExponential(2).replace(/\.?0+e/, 'e');
}

/** Clock time of an ISO date, in the reader's zone: `14:03:09` */
export const clockTime = (iso: string): string =>
  new Date(iso).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
