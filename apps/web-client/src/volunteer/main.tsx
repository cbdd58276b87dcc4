// The volunteer page: one column, from "what is this" to a running curve. The work is done in the worker.
import '../shared/base.css';
import './volunteer.css';
import { render } from 'preact';
import { App } from './app.tsx';
import { connect } from './tab-link.ts';

const host = document.getElementById('page');
if (!host) throw new Error('index.html lacks the element #page.');
connect();
render(<App />, host);
