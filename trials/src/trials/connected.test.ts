import { describe, expect, it } from 'vitest';
import { connected } from './connected.ts';

describe('volunteers of weft load on weft serve', () => {
  it('are all admitted, leased and answered, without an error', async () => {
    const result = await connected({ volunteers: 200, seconds: 11, ramp: 2 }, () => undefined);
    const measured = Object.fromEntries(result.figures.map((figure) => [figure.name, figure]));
    expect(measured['volunteers admitted throughout']).toMatchObject({ ok: true, measured: '200' });
    expect(measured['volunteers with a lease']).toMatchObject({ ok: true, measured: '200' });
    expect(measured.errors).toMatchObject({ ok: true });
    // How fast depends on who else uses this machine; that it was measured does not.
    expect(measured['acknowledgement of a heartbeat, p99']?.measured).toMatch(/ ms$/);
    expect(result.detail.load).toMatchObject({ honest: 200, reconnections: 0 });
  }, 120_000);
});
