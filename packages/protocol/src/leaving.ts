// The list of what leaves a volunteer's device, written from the schemas: a field added to a message shows up on the page.
import { z } from 'zod';
import { heartbeatSchema, helloSchema, joinSchema, uploadBeginSchema } from './volunteer-messages.ts';

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

/** Everything a volunteer sends, besides the factors themselves and the network address any server sees. */
export function everythingThatLeaves(): Leaving[] {
  const messages = {
    'volunteer:hello': helloSchema,
    'round:join': joinSchema,
    'lease:heartbeat': heartbeatSchema,
    'upload:begin': uploadBeginSchema,
  };
  return Object.entries(messages).flatMap(([event, schema]) => fieldsOf(schema).map((field) => ({ event, field })));
}
