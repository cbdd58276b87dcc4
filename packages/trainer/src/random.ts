// Random numbers that are the same in the tab and in Node: xoroshiro128+ seeded from names.
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';

export interface Random {
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Uniform integer in [0, below). */
  below(limit: number): number;
}

/** FNV-1a over the UTF-16 units of the names; enough to keep streams of different names apart. */
function seedOf(names: readonly string[]): number {
  let hash = 0x811c9dc5;
  for (const unit of names.join('\0')) {
    hash ^= unit.codePointAt(0) ?? 0;
    hash = Math.imul(hash, 0x01000193);
  }
  return hash | 0;
}

/** 32 bits that depend on these names only. */
export const integerSeed = (...names: string[]): number => seedOf(names) >>> 0;

/** A stream of its own for these names, such as (run seed, tensor name). */
export function seededRandom(...names: string[]): Random {
  const generator = xoroshiro128plus(seedOf(names));
  const uniform = () => uniformFloat64(generator);
  return { uniform, below: (limit) => Math.floor(uniform() * limit) };
}

/** A shuffled copy (Fisher and Yates). */
export function shuffled<T>(items: readonly T[], random: Random): T[] {
  const copy = [...items];
  for (let i = copy.length - 1; i > 0; i -= 1) {
    const j = random.below(i + 1);
    const a = copy[i] as T;
    copy[i] = copy[j] as T;
    copy[j] = a;
  }
  return copy;
}
