// The worker's entry: a tab behind Comlink.
import '../shared/no-eval.ts';
import { expose } from 'comlink';
import { Tab } from './tab.ts';

expose(new Tab());
