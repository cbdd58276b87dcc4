// Launching and driving headless browsers whose tabs take part in runs. Knows server and page by their address only.
export * from './adapter.ts';
export * from './experiment.ts';
export * from './launch.ts';
export * from './tab.ts';
