// `weft pull`: a model from a Hugging Face hub into the shared cache or a folder.
import { action, formatBytes, table, UsageError } from '../command.ts';
import { hubSettings } from '../hub/hub.ts';
import { pullModel } from '../hub/pull.ts';
import { parseHubModel } from '../hub/spec.ts';
import type { Register } from '../program.ts';

interface PullCommandOptions {
  readonly out?: string;
}

const HELP = `
Fetched are config.json, the safetensors weights (with their index), the tokenizer, the chat template, the card and the
licence; nothing else of the repository. Every file is checked against the hash the hub states. A pull that breaks off,
or is stopped with Ctrl-C, goes on where it was when the same command is run again.

Without --out the model goes to the cache that transformers and other tools share, and every command that takes --model
finds it there by the name hf:ORG/NAME[@REV].

  HF_ENDPOINT    address of the hub or of a mirror (https://huggingface.co)
  HF_TOKEN       token for private and gated models; else the one kept by "hf auth login"
  HF_HUB_CACHE   the cache (HF_HOME/hub, which is ~/.cache/huggingface/hub)

Examples:
  weft pull HuggingFaceTB/SmolLM2-135M
  weft pull Qwen/Qwen2.5-0.5B@main --out models/qwen`;

export const registerPull: Register = (program) => {
  const command = program
    .command('pull')
    .description('Fetch a model from the Hugging Face hub; resumable, every file checked by its hash.')
    .argument('<model>', 'ORG/NAME, or ORG/NAME@REV for a branch, a tag or a commit')
    .option('--out <dir>', 'a new or empty folder for the model (default: the shared cache)')
    .addHelpText('after', HELP);
  action<PullCommandOptions>(command, async ({ out }, [name = ''], io) => {
    if (out === '') throw new UsageError('--out is empty; name a folder, or leave it out.');
    const pulled = await pullModel(parseHubModel(name), await hubSettings(), io, out === undefined ? {} : { out });
    io.result(pulled, () =>
      [
        table([
          ['file', 'size', 'hash'],
          ...pulled.files.map(({ path, bytes, algorithm, hash }) => [
            path,
            formatBytes(bytes),
            `${algorithm} ${hash.slice(0, 16)}…`,
          ]),
        ]),
        '',
        `${pulled.repo} at ${pulled.commit}: ${formatBytes(pulled.bytes)}, ${formatBytes(pulled.fetchedBytes)} of them fetched now.`,
        `It is in ${pulled.folder}`,
      ].join('\n'),
    );
  });
};
