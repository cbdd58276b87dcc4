// A row of the bench's table: a figure, its gate, and what it was computed from.
export interface Row {
  readonly id: string;
  readonly what: string;
  readonly figure: number;
  readonly unit: string;
  readonly gate: { readonly sense: 'at least' | 'at most'; readonly value: number } | null;
  readonly from: string;
}

export const meets = ({ figure, gate }: Row): boolean =>
  gate === null || (gate.sense === 'at least' ? figure >= gate.value : figure <= gate.value);

export const seconds = (ms: number): string => (ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${ms.toFixed(1)} ms`);

export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;

export function figureOf({ figure, unit }: Row): string {
  if (Number.isInteger(figure)) return unit ? `${figure} ${unit}` : String(figure);
  const text =
    figure !== 0 && Math.abs(figure) < 0.01
      ? figure.toExponential(1)
      : figure >= 100
        ? figure.toFixed(0)
        : figure.toFixed(2);
  return unit ? `${text} ${unit}` : text;
}

export const gateOf = ({ gate }: Row): string => (gate ? `${gate.sense === 'at least' ? '≥' : '≤'} ${gate.value}` : '');
