// Scores of answers, generated or chosen; loss is in evaluate.ts.
export * from './accuracy.ts';
export * from './answers.ts';
export * from './exact-match.ts';
export * from './rouge-l.ts';
