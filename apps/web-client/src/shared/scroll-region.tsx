// A named part of the page that scrolls by itself, for the keyboard too.
import type { ComponentChildren } from 'preact';

export function ScrollRegion({
  label,
  height,
  children,
}: {
  label: string;
  height?: number;
  children: ComponentChildren;
}) {
  return (
    <section
      class="table-scroll"
      aria-label={label}
      style={height === undefined ? {} : { height: `${height}px` }}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard (axe: scrollable-region-focusable).
      tabIndex={0}
    >
      {children}
    </section>
  );
}
