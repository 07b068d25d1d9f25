// A program that knows both services by clients generated from their documents only: it imports an invoice, has it paid, finds
// the charge in the ledger, and charges once under a key that it sends twice. Prints one line; any surprise is an exception.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths as Billing } from "./generated/billing.js";
import type { paths as Payments } from "./generated/payments.js";

const url = (name: string): string => {
  const value = process.env[name];
  assert(value, `${name} is not set`);
  return value;
};
const billing = createClient<Billing>({ baseUrl: url("BILLING_URL") });
const payments = createClient<Payments>({ baseUrl: url("PAYMENTS_URL") });

const reference = "CLIENT-1";
const imported = await billing.POST("/v1/imports", {
  params: { query: { dry_run: false } },
  body: { reference, customer_id: 7, currency: "EUR", amount: "12.34" },
  bodySerializer: (row) => `${JSON.stringify(row)}\n`,
  headers: { "content-type": "application/x-ndjson" },
});
assert.equal(imported.data?.created, 1, JSON.stringify(imported.error ?? imported.data));

const started = await billing.POST("/v1/runs", { body: { reference_prefix: reference } });
assert(started.data && "id" in started.data, JSON.stringify(started.error ?? started.data));
const id = started.data.id;
for (let state = "running"; state !== "finished"; ) {
  const { data, error } = await billing.GET("/v1/runs/{id}", { params: { path: { id } } });
  assert(data, JSON.stringify(error));
  state = data.state;
  await new Promise((resolve) => setTimeout(resolve, 20));
}

const invoice = await billing.GET("/v1/invoices/{reference}", { params: { path: { reference } } });
assert.equal(invoice.data?.state, "PAID");
const attempts = await billing.GET("/v1/attempts", { params: { query: { limit: 1000 } } });
const attempt = attempts.data?.items.find((attempt) => attempt.reference === reference);
assert(attempt);
const row = await payments.GET("/v1/ledger/{key}", { params: { path: { key: attempt.key } } });
assert.equal(row.data?.state, "CHARGED");
assert.equal(row.data.amount_minor, 1234);

const charge = () =>
  payments.POST("/payments/pay", {
    params: { header: { "Idempotency-Key": "client-charge-1" } },
    body: { id: "CLIENT-2", customer_id: 7, currency: "EUR", value: 5 },
  });
const [first, second] = [await charge(), await charge()];
assert.equal(first.data?.id, "CLIENT-2", JSON.stringify(first.error));
assert.equal(second.data?.id, "CLIENT-2");
assert.equal(second.response.headers.get("Idempotency-Replayed"), "true");
assert.equal(second.response.headers.get("Ledger-Seq"), first.response.headers.get("Ledger-Seq"));

console.log(`paid ${reference}: ledger row ${row.data.seq}`);
