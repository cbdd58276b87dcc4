import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packByLife } from './packing.ts';

const life = (first: number, last: number) => ({ first, last });

describe('packing by life', () => {
  it('lets tensors lie in the same bytes unless their lives meet', () => {
    const { places, slabs } = packByLife(
      [
        { key: 'weights', bytes: 100, life: null },
        { key: 'a', bytes: 512, life: life(0, 1) },
        { key: 'b', bytes: 512, life: life(1, 2) },
        { key: 'c', bytes: 500, life: life(2, 3) },
      ],
      4096,
    );
    expect(Object.fromEntries(places)).toEqual({
      weights: { slab: 0, offset: 0 },
      a: { slab: 1, offset: 0 },
      b: { slab: 1, offset: 512 },
      c: { slab: 1, offset: 0 },
    });
    expect(slabs).toEqual([256, 1024]);
  });

  it('never overlaps two tensors that live at once, and stays within the slabs', () => {
    const item = fc.record({
      bytes: fc.integer({ min: 1, max: 2000 }),
      life: fc.option(
        fc.tuple(fc.nat(20), fc.nat(6)).map(([first, length]) => life(first, first + length)),
        { nil: null },
      ),
    });
    fc.assert(
      fc.property(fc.array(item, { maxLength: 40 }), (list) => {
        const items = list.map((each, key) => ({ ...each, key }));
        const { places, slabs } = packByLife(items, 2048);
        expect(places.size).toBe(items.length);
        for (const slab of slabs) expect(slab).toBeLessThanOrEqual(2048);
        for (const a of items) {
          const at = places.get(a.key) ?? { slab: -1, offset: 0 };
          expect(at.offset % 256).toBe(0);
          expect(at.offset + a.bytes).toBeLessThanOrEqual(slabs[at.slab] ?? 0);
          for (const b of items.slice(0, a.key)) {
            const other = places.get(b.key) ?? { slab: -1, offset: 0 };
            const together = !a.life || !b.life || (a.life.first <= b.life.last && b.life.first <= a.life.last);
            if (other.slab !== at.slab || !together) continue;
            expect(at.offset >= other.offset + b.bytes || other.offset >= at.offset + a.bytes).toBe(true);
          }
        }
      }),
    );
  });
});
