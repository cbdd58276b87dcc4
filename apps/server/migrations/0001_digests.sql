-- What a round's rows were made from, so that start-up finds rounds that differ from their files without reading rows.
ALTER TABLE "rounds" ADD COLUMN "digest" text;
--> statement-breakpoint
CREATE INDEX "receipts_run_round" ON "receipts" ("run_id", "round");
