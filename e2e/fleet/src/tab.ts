// One volunteer's tab, driven as a person would: limits, task, Start. A browser context of its own, so that it is a
// volunteer of its own.
import type { Browser, BrowserContext, Page } from 'playwright';
import type { TabSettings } from './experiment.ts';
import { FleetError } from './launch.ts';

/** Downloading the model, compiling and timing may take a while on a software adapter. */
const READY_MS = 180_000;

export class VolunteerTab {
  readonly name: string;
  readonly page: Page;
  readonly #context: BrowserContext;
  readonly #settings: TabSettings;
  readonly #troubles = new Set<(message: string) => void>();

  private constructor(context: BrowserContext, page: Page, settings: TabSettings) {
    this.name = settings.name;
    this.page = page;
    this.#context = context;
    this.#settings = settings;
    page.on('pageerror', (error) => this.#tell(error.message));
    page.on('crash', () => this.#tell('The tab crashed.'));
  }

  /** Opens the volunteer page of the server at `url`. Throws FleetError 'tab' when it does not load. */
  static async open(browser: Browser, url: string, settings: TabSettings): Promise<VolunteerTab> {
    const context = await browser.newContext();
    const page = await context.newPage();
    const tab = new VolunteerTab(context, page, settings);
    const response = await page.goto(url);
    if (!response?.ok()) throw new FleetError('tab', `${url} answered ${response?.status() ?? 'nothing'}.`);
    return tab;
  }

  /** Told of script errors and crashes of the page. */
  onTrouble(listener: (message: string) => void): void {
    this.#troubles.add(listener);
  }

  #tell(message: string): void {
    for (const listener of this.#troubles) listener(message);
  }

  /**
   * Sets the limits and the task, and waits until the tab is ready to start. Resolves with its verdict, such as "rank 8".
   * Throws FleetError 'tab' with what the page says is wrong.
   */
  async whenReady(): Promise<string> {
    const { maxMemoryMB, maxRank, maxUploadMB, task } = this.#settings;
    await this.#whenStartable();
    const limits = { 'GPU memory': maxMemoryMB, 'Largest rank': maxRank, 'Upload per round': maxUploadMB };
    if (Object.values(limits).some((limit) => limit !== undefined)) await this.setLimits(limits);
    if (task !== undefined) await this.page.getByRole('combobox', { name: 'Sample task' }).selectOption(task);
    await this.#whenStartable();
    return `rank ${await this.rank()}`;
  }

  /** Fills "My limits" and applies them. Labels are the page's; undefined leaves a field as it is, null empties it. */
  async setLimits(limits: Record<string, number | null | undefined>): Promise<void> {
    const form = this.page.getByRole('form', { name: 'My limits' });
    if (!(await form.isVisible())) await this.page.getByText('My limits', { exact: true }).click();
    for (const [label, value] of Object.entries(limits)) {
      if (value !== undefined) await form.getByLabel(label).fill(value === null ? '' : String(value));
    }
    await form.getByRole('button', { name: 'Apply' }).click();
    await form.getByText(/These limits hold/).waitFor();
  }

  async #whenStartable(): Promise<void> {
    const start = this.page.getByRole('button', { name: 'Start helping' });
    const ready = start.and(this.page.locator(':enabled')).waitFor({ timeout: READY_MS });
    const problem = this.page.getByTestId('problem').first();
    try {
      await ready;
    } catch (cause) {
      const said = (await problem.isVisible()) ? await problem.textContent() : await this.status();
      throw new FleetError('tab', `${this.name} did not become ready: ${said}`, { cause });
    }
  }

  /** The rank the tab proposes, as it shows it. */
  async rank(): Promise<number> {
    return Number(((await this.page.getByTestId('rank').first().textContent()) ?? '').replace(/\D+/g, ''));
  }

  async start(): Promise<void> {
    await this.page.getByRole('button', { name: 'Start helping' }).click();
  }

  /** The page's one line of status. */
  async status(): Promise<string> {
    return (await this.page.getByTestId('status').textContent()) ?? '';
  }

  /** Closes the tab as a person would: the page says goodbye and its lease is released. */
  async close(): Promise<void> {
    if (!this.page.isClosed()) await this.page.close({ runBeforeUnload: false });
    await this.#context.close();
  }
}
