// The table of devices: sorted by a click on a column, filtered by words. Here while the snapshot carries them all, else by the
// server, a page at a time.
import { useSignal } from '@preact/signals';
import type { ClientCounts, ClientRow, ClientState, RunView } from '@weft/protocol';
import { ago, count, loss, quantity } from '../shared/format.ts';
import { RankChip } from '../shared/rank.tsx';
import { ScrollRegion } from '../shared/scroll-region.tsx';
import { BanAction, BanList } from './bans.tsx';
import { PAGE_ROWS, useClientPage } from './device-pages.ts';
import {
  arrange,
  COLUMNS,
  type Column,
  clientLabel,
  rowsInWords,
  type Sorting,
  statesIn,
  totalOf,
} from './device-table.ts';
import { inviteLink } from './invite.tsx';
import { snapshotAt } from './store.ts';

interface DevicesProps {
  /** The rows of the snapshot: all of them, or the first few hundred. */
  readonly clients: readonly ClientRow[];
  /** Of all devices. */
  readonly counts: ClientCounts;
  readonly run: RunView;
}

export function Devices({ clients, counts, run }: DevicesProps) {
  const filter = useSignal('');
  const state = useSignal<ClientState | null>(null);
  const offset = useSignal(0);
  const sorting = useSignal<Sorting>({ key: 'state', descending: false });
  const total = totalOf(counts);
  const many = total > clients.length;
  const page = useClientPage(
    many
      ? {
          runId: run.runId,
          query: filter.value,
          state: state.value,
          sort: sorting.value.key,
          descending: sorting.value.descending,
          offset: offset.value,
          limit: PAGE_ROWS,
        }
      : null,
    snapshotAt.value,
  );
  const rows = many ? (page.value?.rows ?? clients.slice(0, PAGE_ROWS)) : arrange(clients, filter.value, sorting.value);
  const matching = page.value?.total ?? total;
  const narrow = (work: () => void) => {
    work();
    offset.value = 0;
  };
  const sortBy = ({ key, numeric }: Column) =>
    narrow(() => {
      const { key: now, descending } = sorting.value;
      sorting.value = { key, descending: now === key ? !descending : numeric && key !== 'seen' };
    });
  const banned = clients.filter((row) => row.state === 'banned').length;
  if (clients.length === 0) return <BanList />;
  return (
    <section class="devices">
      <div class="section-head">
        <h2>Devices</h2>
        <span class="quiet small" data-testid="device-count">
          {many
            ? rowsInWords(offset.value, rows.length, matching, total)
            : rows.length === clients.length
              ? quantity(clients.length, 'device')
              : `${rows.length} of ${quantity(clients.length, 'device')}`}
        </span>
        <span class="spacer" />
        <a class="small" href={inviteLink(run.runId)}>
          invite link
        </a>
        {!many && banned > 0 && (
          <button
            type="button"
            class="button small"
            aria-pressed={filter.value === 'banned'}
            onClick={() => {
              filter.value = filter.value === 'banned' ? '' : 'banned';
            }}
          >
            {banned} banned
          </button>
        )}
        <input
          type="search"
          aria-label="Filter devices"
          placeholder="Filter: rank 8, training, …"
          maxLength={200}
          value={filter.value}
          onInput={(event) => {
            const { value } = event.currentTarget;
            narrow(() => {
              filter.value = value;
            });
          }}
        />
      </div>
      {many && (
        <fieldset class="states">
          <legend class="visually-hidden">Devices by state</legend>
          {statesIn(counts).map(([name, devices]) => (
            <button
              key={name}
              type="button"
              class="button small"
              aria-pressed={state.value === name}
              onClick={() =>
                narrow(() => {
                  state.value = state.value === name ? null : name;
                })
              }
            >
              {count(devices)} {name}
            </button>
          ))}
        </fieldset>
      )}
      <ScrollRegion label="Devices">
        <table class="device-table">
          <thead>
            <tr>
              {COLUMNS.map((column) => {
                const active = sorting.value.key === column.key;
                const direction = sorting.value.descending ? 'descending' : 'ascending';
                return (
                  <th
                    key={column.key}
                    scope="col"
                    class={column.numeric && column.key !== 'rank' ? 'numeric' : ''}
                    aria-sort={active ? direction : undefined}
                  >
                    <button type="button" class="sort" onClick={() => sortBy(column)}>
                      {column.label}
                      <span aria-hidden="true">{active ? (sorting.value.descending ? '↓' : '↑') : ''}</span>
                    </button>
                  </th>
                );
              })}
              <th scope="col">
                <span class="visually-hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <Row key={row.clientId} row={row} />
            ))}
            {rows.length === 0 && (
              <tr>
                <td colSpan={COLUMNS.length + 1} class="quiet">
                  No device matches{filter.value.trim() === '' ? '' : ` “${filter.value}”`}.
                </td>
              </tr>
            )}
          </tbody>
        </table>
      </ScrollRegion>
      {many && matching > PAGE_ROWS && (
        <div class="buttons pager">
          <button
            type="button"
            class="button small"
            disabled={offset.value === 0}
            onClick={() => {
              offset.value = Math.max(0, offset.value - PAGE_ROWS);
            }}
          >
            Earlier rows
          </button>
          <button
            type="button"
            class="button small"
            disabled={offset.value + PAGE_ROWS >= matching}
            onClick={() => {
              offset.value += PAGE_ROWS;
            }}
          >
            Further rows
          </button>
        </div>
      )}
      <BanList />
    </section>
  );
}

function Row({ row }: { row: ClientRow }) {
  const { progress } = row;
  return (
    <tr data-testid="client" data-client={row.clientId} data-state={row.state}>
      <th scope="row">
        <span class={row.name ? '' : 'mono'}>{clientLabel(row)}</span>
        <span class="quiet device-name">{row.device}</span>
      </th>
      <td>{row.rank === null ? '–' : <RankChip rank={row.rank} />}</td>
      <td>
        <span class={`state ${row.state}`}>{row.state}</span>
        {row.task && <span class="quiet device-name">{row.task}</span>}
      </td>
      <td class="numeric">{progress && progress.steps > 0 ? `${progress.step} / ${progress.steps}` : '–'}</td>
      <td class="numeric">{progress?.tokensPerSecond == null ? '–' : count(progress.tokensPerSecond)}</td>
      <td class="numeric">{loss(progress?.loss ?? null)}</td>
      <td class="numeric">{ago(row.lastSeenMs)}</td>
      <td class="quiet">{row.reason ?? ''}</td>
      <td>
        <BanAction row={row} />
      </td>
    </tr>
  );
}
