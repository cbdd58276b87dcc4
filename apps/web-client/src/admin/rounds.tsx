// The rounds so far, and two versions' losses side by side.
import { useSignal } from '@preact/signals';
import type { Contribution, RoundRecord, RunSnapshot } from '@weft/protocol';
import { bytes, count, duration, loss, quantity, share, significant, UNKNOWN } from '../shared/format.ts';
import { RankChip } from '../shared/rank.tsx';
import { ScrollRegion } from '../shared/scroll-region.tsx';
import { committedRounds, compareVersions, meanOf } from './charts.ts';
import { clientLabel } from './device-table.ts';

export function Rounds({ snapshot }: { snapshot: RunSnapshot }) {
  const { rounds, run } = snapshot;
  const open = useSignal<number | null>(null);
  if (rounds.length === 0) return null;
  return (
    <section class="rounds">
      <h2>Rounds</h2>
      <ScrollRegion label="Rounds">
        <table>
          <thead>
            <tr>
              <th scope="col">Round</th>
              <th scope="col">Outcome</th>
              <th scope="col" class="numeric">
                Uploads
              </th>
              <th scope="col" class="numeric">
                Training loss
              </th>
              <th scope="col" class="numeric">
                Held-out loss
              </th>
              <th scope="col" class="numeric">
                Merge
              </th>
            </tr>
          </thead>
          <tbody>
            {[...rounds].reverse().map((record) => (
              <RoundRows
                key={`${record.round}-${record.endedAt}`}
                record={record}
                sparse={record.version <= run.settings.sparseRounds}
                open={open.value === record.round}
                toggle={() => {
                  open.value = open.value === record.round ? null : record.round;
                }}
              />
            ))}
          </tbody>
        </table>
      </ScrollRegion>
    </section>
  );
}

function RoundRows({
  record,
  sparse,
  open,
  toggle,
}: {
  record: RoundRecord;
  sparse: boolean;
  open: boolean;
  toggle: () => void;
}) {
  return (
    <>
      <tr data-testid="round-row" data-round={record.round} data-outcome={record.outcome}>
        <th scope="row">
          <button
            type="button"
            class="sort"
            aria-expanded={open}
            onClick={toggle}
            disabled={record.contributions.length === 0}
          >
            {record.round}
            {record.contributions.length > 0 && <span aria-hidden="true">{open ? '▾' : '▸'}</span>}
          </button>
        </th>
        <td>
          {record.outcome === 'committed'
            ? `version ${record.version}${sparse ? ', of sparse updates' : ''}`
            : 'abandoned'}
          {record.reason !== null && (
            <span class="quiet outcome-line" data-testid="round-outcome">
              {record.reason}
            </span>
          )}
        </td>
        <td class="numeric">{uploadsInWords(record)}</td>
        <td class="numeric">{loss(record.trainLoss)}</td>
        <td class="numeric">{loss(meanOf(record.heldOutLoss))}</td>
        <td class="numeric">{record.outcome === 'committed' ? duration(record.mergeMs) : '–'}</td>
      </tr>
      {open && (
        <tr class="nested">
          <td colSpan={6}>
            <table>
              <thead>
                <tr>
                  <th scope="col">Device</th>
                  <th scope="col">Rank</th>
                  <th scope="col">Task</th>
                  <th scope="col" class="numeric">
                    Loss, first → last
                  </th>
                  <th scope="col" class="numeric">
                    Share
                  </th>
                  <th scope="col" class="numeric" title="Cosine of its change with the mean change that was merged">
                    Agreement
                  </th>
                  <th scope="col" class="numeric" title="Frobenius norm of what it changed, over all matrices">
                    Change
                  </th>
                  <th scope="col" class="numeric">
                    Tokens
                  </th>
                  <th scope="col" class="numeric">
                    Upload
                  </th>
                </tr>
              </thead>
              <tbody>
                {record.contributions.map((each) => (
                  <ContributionRows key={each.sha256 + each.clientId} contribution={each} />
                ))}
              </tbody>
            </table>
          </td>
        </tr>
      )}
    </>
  );
}

function ContributionRows({ contribution }: { contribution: Contribution }) {
  const {
    name,
    rank,
    prunedFrom,
    task,
    targetTokens,
    uploadBytes,
    firstLoss,
    lastLoss,
    weight,
    changeNorm,
    cosineToMean,
  } = contribution;
  const remarks = remarksOn(contribution);
  return (
    <>
      <tr class={remarks === '' ? '' : 'remarked'}>
        <th scope="row" class={name ? '' : 'mono'}>
          {clientLabel(contribution)}
        </th>
        <td>
          <RankChip rank={rank} />
          {prunedFrom === null ? null : ` pruned from ${prunedFrom}`}
        </td>
        <td>{task ?? 'own file'}</td>
        <td class="numeric">
          {loss(firstLoss)} → {loss(lastLoss)}
        </td>
        <td class="numeric">
          {contribution.quarantined !== null
            ? 'quarantined'
            : isOnlyCredited(contribution)
              ? 'credited'
              : share(weight)}
        </td>
        <td class="numeric">{cosineToMean === null ? UNKNOWN : cosineToMean.toFixed(2)}</td>
        <td class="numeric">{changeNorm === null ? UNKNOWN : significant(changeNorm)}</td>
        <td class="numeric">{count(targetTokens)}</td>
        <td class="numeric">{bytes(uploadBytes)}</td>
      </tr>
      {remarks !== '' && (
        <tr class="remarks">
          <td colSpan={9}>
            <span class="remark">{remarks}</span>
          </td>
        </tr>
      )}
    </>
  );
}

/** Late work that counts for its volunteer and has no part in the merge. */
const isOnlyCredited = ({ quarantined, late, weight }: Contribution): boolean =>
  quarantined === null && late !== null && weight === 0;

/** How many uploads a round merged, and what became of the others. */
export function uploadsInWords({ contributions }: RoundRecord): string {
  const of = (wanted: (each: Contribution) => boolean) => contributions.filter(wanted).length;
  const quarantined = of((each) => each.quarantined !== null);
  const credited = of(isOnlyCredited);
  const late = of((each) => each.late !== null && each.quarantined === null) - credited;
  const odd = of((each) => each.outlier !== null);
  return [
    `${contributions.length - quarantined - credited}${quarantined > 0 ? ` + ${quarantined} quarantined` : ''}`,
    ...(late > 0 ? [`${late} late`] : []),
    ...(credited > 0 ? [`${credited} only credited`] : []),
    ...(odd > 0 ? [quantity(odd, 'outlier')] : []),
  ].join(', ');
}

/** What an admin should know of one upload. */
export function remarksOn({ quarantined, late, clip, outlier }: Contribution): string {
  const parts = [
    ...(late === null ? [] : [`late: ${late.replace(/\.$/, '')}`]),
    ...(quarantined === null ? [] : [`quarantined: ${quarantined}`]),
    ...(clip < 1 ? [`change clipped to ${share(clip)} of its size`] : []),
    ...(outlier === null ? [] : [`outlier: ${outlier}`]),
  ];
  return parts.join('; ');
}

/** Held-out losses of two versions, chosen by the reader. */
export function Compare({ snapshot }: { snapshot: RunSnapshot }) {
  const versions = [
    ...(snapshot.baseLoss ? [0] : []),
    ...committedRounds(snapshot.rounds)
      .filter((record) => record.heldOutLoss !== null)
      .map((record) => record.version),
  ];
  const left = useSignal<number | null>(null);
  const right = useSignal<number | null>(null);
  const [first, last] = [versions[0], versions.at(-1)];
  if (first === undefined || last === undefined || versions.length < 2) {
    return <p class="quiet small">Two evaluated versions are needed to compare their losses.</p>;
  }
  const from = left.value ?? first;
  const to = right.value ?? last;
  const choose = (label: string, value: number, set: (version: number) => void) => (
    <select
      class="compact"
      aria-label={label}
      value={String(value)}
      onChange={(event) => set(Number(event.currentTarget.value))}
    >
      {versions.map((version) => (
        <option key={version} value={String(version)}>
          {version === 0 ? 'base model' : `version ${version}`}
        </option>
      ))}
    </select>
  );
  return (
    <div class="compare">
      <div class="buttons">
        {choose('Compare', from, (version) => {
          left.value = version;
        })}
        <span aria-hidden="true">→</span>
        {choose('with', to, (version) => {
          right.value = version;
        })}
      </div>
      <table class="figures">
        <thead>
          <tr>
            <th scope="col">Task</th>
            <th scope="col">{from === 0 ? 'base' : `v${from}`}</th>
            <th scope="col">{to === 0 ? 'base' : `v${to}`}</th>
            <th scope="col">change</th>
          </tr>
        </thead>
        <tbody>
          {compareVersions(snapshot, from, to).map((row) => (
            <tr key={row.task}>
              <th scope="row">{row.task}</th>
              <td>{loss(row.left)}</td>
              <td>{loss(row.right)}</td>
              <td>
                {row.change === null
                  ? '–'
                  : `${row.change > 0 ? '+' : row.change < 0 ? '−' : ''}${loss(Math.abs(row.change))}`}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
