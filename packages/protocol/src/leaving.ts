// The list of what leaves a volunteer's device, written from the schemas: a field added to a message shows up on the page.
import { z } from 'zod';
import { VOLUNTEER_REQUESTS } from './volunteer-messages.ts';

/** One thing that leaves the device. */
export interface Leaving {
  /** Message it travels in. */
  readonly event: string;
  /** Path inside the message, such as `progress.loss`. */
  readonly field: string;
}

function fieldsOf(schema: z.ZodType, prefix = ''): string[] {
  if (schema instanceof z.ZodObject) {
    return Object.entries(schema.shape).flatMap(([key, inner]) =>
      fieldsOf(inner as z.ZodType, prefix ? `${prefix}.${key}` : key),
    );
  }
  if (schema instanceof z.ZodDiscriminatedUnion) {
    return [...new Set(schema.options.flatMap((option) => fieldsOf(option as z.ZodType, prefix)))];
  }
  if (schema instanceof z.ZodArray) return fieldsOf(schema.element as z.ZodType, prefix);
  if (schema instanceof z.ZodNullable || schema instanceof z.ZodOptional)
    return fieldsOf(schema.unwrap() as z.ZodType, prefix);
  return [prefix];
}

/** Requests of the operator's evaluators, which volunteers never send. */
const OPERATORS = ['evaluation:next', 'evaluation:report'];

/** Everything a volunteer sends, in the order of a round; besides it, any server sees the network address. */
export function everythingThatLeaves(): Leaving[] {
  return Object.entries(VOLUNTEER_REQUESTS)
    .filter(([event]) => !OPERATORS.includes(event))
    .flatMap(([event, { payload }]) => fieldsOf(payload).map((field) => ({ event, field })));
}
