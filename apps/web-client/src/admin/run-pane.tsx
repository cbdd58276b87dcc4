// One run: what it is, what it does now, its devices, what the rounds brought.
import type { RunSnapshot } from '@weft/protocol';
import { quantity } from '../shared/format.ts';
import { Adapters } from './adapters.tsx';
import { Charts } from './charts-row.tsx';
import { Commands } from './commands.tsx';
import { Devices } from './devices.tsx';
import { Invite } from './invite.tsx';
import { Invites } from './invites.tsx';
import { Log } from './log.tsx';
import { PhaseBar } from './phase-bar.tsx';
import { Rounds } from './rounds.tsx';
import { lateWorkInWords, roundsInWords } from './settings-words.ts';

export function RunPane({ snapshot }: { snapshot: RunSnapshot }) {
  const { run, round, clients, rounds, log } = snapshot;
  const ended = run.state === 'completed' || run.state === 'stopped';
  return (
    <article class="run" aria-label={`Run ${run.settings.name}`}>
      <header class="run-head">
        <div>
          <h1>{run.settings.name}</h1>
          <p class="quiet small">
            <span data-testid="run-state">{run.state}</span> · {run.roundsCommitted} of{' '}
            {quantity(run.settings.rounds, 'round')} committed · {run.settings.strategy} · {run.model.name}
          </p>
        </div>
        <Commands key={run.runId} run={run} round={round} />
      </header>
      {run.outcome && (
        <p class="outcome" data-testid="outcome">
          {run.outcome}
        </p>
      )}
      {!ended && <PhaseBar run={run} round={round} />}
      {!ended && run.settings.admission === 'invited' && <Invites run={run} />}
      {!ended && run.settings.admission === 'open' && clients.every((client) => client.state === 'gone') && (
        <Invite run={run} />
      )}
      <Charts snapshot={snapshot} />
      <Devices key={`devices ${run.runId}`} clients={clients} counts={snapshot.clientCounts} run={run} />
      <div class="pair">
        <Rounds snapshot={snapshot} />
        <Adapters snapshot={snapshot} />
      </div>
      {rounds.length + log.length > 0 && <Log log={log} runId={run.runId} />}
      <Facts snapshot={snapshot} />
    </article>
  );
}

/** The run's settings, for whoever comes later. */
function Facts({ snapshot: { run } }: { snapshot: RunSnapshot }) {
  const { settings } = run;
  const facts: [string, string][] = [
    ['Purpose', settings.purpose],
    ['Run by', settings.operator],
    ['Model', `${run.model.name}, ${run.model.parameters.toLocaleString('en-US')} parameters, ${run.model.licence}`],
    ['Rounds', roundsInWords(settings)],
    ['Late work', lateWorkInWords(settings)],
    ['Tasks', settings.tasks.join(', ')],
    ['Ranks', settings.ranks.join(', ')],
    ['Adapted matrices', settings.targets.join(', ')],
    [
      'On each device',
      `${settings.localSteps} steps of ${settings.batchSize} rows × ${settings.sequenceLength} tokens, learning rate ${settings.learningRate}, ${settings.schedule}`,
    ],
    ['Who may take part', settings.admission === 'open' ? 'everyone with the link' : 'invited volunteers'],
    ['Own files', settings.allowOwnFiles ? 'allowed' : 'not allowed'],
    ['Seed', settings.seed],
    ['Run hash', run.runHash],
  ];
  return (
    <details class="facts">
      <summary>Settings of this run</summary>
      <dl>
        {facts.map(([term, text]) => (
          <div key={term}>
            <dt>{term}</dt>
            <dd class={term === 'Run hash' ? 'mono' : ''}>{text}</dd>
          </div>
        ))}
      </dl>
    </details>
  );
}
