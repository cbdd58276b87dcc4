-- The tables of the history index. "if not exists": folders made before there were migrations have them already.
CREATE TABLE IF NOT EXISTS "runs" (
	"run_id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"strategy" text NOT NULL,
	"created_at" text NOT NULL,
	"run_hash" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE IF NOT EXISTS "rounds" (
	"run_id" text NOT NULL,
	"round" integer NOT NULL,
	"version" integer NOT NULL,
	"outcome" text NOT NULL,
	"reason" text,
	"ended_at" text NOT NULL,
	"merge_ms" double precision NOT NULL,
	"train_loss" double precision,
	"held_out_loss" jsonb,
	PRIMARY KEY ("run_id", "round")
);
--> statement-breakpoint
CREATE TABLE IF NOT EXISTS "contributions" (
	"run_id" text NOT NULL,
	"round" integer NOT NULL,
	"client_id" text NOT NULL,
	"name" text,
	"rank" integer NOT NULL,
	"task" text,
	"target_tokens" bigint NOT NULL,
	"examples" bigint NOT NULL,
	"upload_bytes" bigint NOT NULL,
	"weight" double precision NOT NULL,
	"quarantined" text,
	PRIMARY KEY ("run_id", "round", "client_id")
);
--> statement-breakpoint
CREATE TABLE IF NOT EXISTS "receipts" (
	"receipt_id" text PRIMARY KEY NOT NULL,
	"run_id" text NOT NULL,
	"round" integer NOT NULL,
	"client_id" text NOT NULL,
	"lease_id" text NOT NULL,
	"sha256" text NOT NULL,
	"bytes" bigint NOT NULL,
	"target_tokens" bigint NOT NULL,
	"accepted_at" text NOT NULL
);
