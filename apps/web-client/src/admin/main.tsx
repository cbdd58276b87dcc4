// The dashboard: sign in, watch and steer runs.
import '../shared/no-eval.ts';
import '../shared/base.css';
import './admin.css';
import './run.css';
import { render } from 'preact';
import { App } from './app.tsx';
import { begin } from './store.ts';

const host = document.getElementById('page');
if (!host) throw new Error('admin.html lacks the element #page.');
begin();
render(<App />, host);
