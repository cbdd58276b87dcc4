// The colour of a rank: one hue a rank, by its logarithm, so that neighbours look alike and 4 differs from 64 at a glance.
// The rank is always written beside it; colour alone says nothing.

/** Hue in degrees: 255 (blue) for rank 1, falling by 42 an octave: green at 8, amber at 16, red at 64, purple at 256. */
export function rankHue(rank: number): number {
  const octaves = Math.log2(Math.max(1, rank));
  return (((255 - 42 * octaves) % 360) + 360) % 360;
}

/** The rank's colour for charts, on the ground of the scheme that holds. */
export function rankColour(rank: number, dark: boolean): string {
  return dark ? `oklch(78% 0.12 ${rankHue(rank).toFixed(0)})` : `oklch(52% 0.13 ${rankHue(rank).toFixed(0)})`;
}

export function RankChip({ rank, testId }: { rank: number; testId?: string }) {
  return (
    <span class="rank-chip" style={{ '--rank-hue': rankHue(rank).toFixed(0) }} data-testid={testId}>
      rank {rank}
    </span>
  );
}
