//! Operations of billing: `/v1` and the routes of the replaced systems. Knows no other service.

use serde_json::{Value, json};
use utoipa::ToSchema;

use super::document::{
    Access, Document, JSON, NDJSON, Operation, own_document, page, parameter, query, reference,
};
use api::billing::{
    AcceptRequest, Accepted, Acknowledgement, AcknowledgementRequest, Attempt, ChangeRequest, Charging,
    Customer, Deployment, ImportReport, ImportRow, Invoice, NetworkRequest, NoteRequest, RepairPage,
    RepairReport, Resolution, ResolveRequest, Run, RunDryRun, RunRequest, ScheduleRun, ScheduleRunRequest,
    ScheduleRunResult, ScheduleStatus, Subscription, SubscriptionAction, UnbackedAcknowledgement,
    UnbackedAcknowledgementRequest,
};
use api::problem::Problem;

const ABOUT: &str = "Charges every invoice exactly once. `/v1` answers errors as RFC 9457 problems; the other paths are \
     those of the replaced systems, which answer as these did. Requests and responses of `/v1` change by addition only.";

const TAGS: [(&str, &str); 9] = [
    ("antaeus", "Routes of Antaeus. Paths match in any letter case, with or without a trailing slash."),
    ("api", "This document."),
    ("charging", "Runs, attempts, and what operators stop and go on with."),
    ("health", "Health paths of the replaced systems and of their known forks."),
    ("imports", "Rows in, one JSON object a line."),
    ("invoice-app", "Routes of the invoice-app, with or without a trailing slash."),
    ("invoices", "Invoices and customers."),
    ("ledger", "The provider's ledger, as operators judge it."),
    ("subscriptions", "Subscriptions and their schedule."),
];

/// Builds the document of billing.
pub(super) fn document() -> Value {
    let mut document = Document::default();
    document.schema::<Problem>();
    own_document(&mut document);
    invoices(&mut document);
    charging(&mut document);
    ledger(&mut document);
    subscriptions(&mut document);
    schedule(&mut document);
    imports(&mut document);
    antaeus(&mut document);
    invoice_app(&mut document);
    let bearer = |text: &str| json!({ "type": "http", "scheme": "bearer", "description": text });
    let schemes = json!({
        "operator": bearer("A line of --operator-token-file. Not needed on loopback where no file is set."),
        "reader": bearer("A line of --reader-token-file. Not needed on loopback or with --anonymous-reads."),
    });
    document.finish("Tinjis billing", ABOUT, 8000, &TAGS, schemes)
}

/// An operation of `/v1` with the answers that all of them may give.
fn v1(method: &'static str, path: &'static str, id: &str, tag: &str, summary: &str) -> Operation {
    let access = if method == "get" { Access::Reader } else { Access::Operator };
    let operation = Operation::new(method, path, id, tag, access, summary)
        .problem(400, "validation: a parameter or a field is wrong, or unknown")
        .problem(403, "the caller has no token that allows it, or is a page of another site")
        .problem(500, "something is broken; see the log")
        .problem(503, "the store cannot be used now, or the service is overloaded or starting")
        .header(503, "Retry-After", "Seconds.")
        .header(503, "Not-Executed", "true: nothing was executed.");
    if path.contains('{') { operation.problem(404, "no row has this name") } else { operation }
}

fn get<T: ToSchema>(document: &mut Document, path: &'static str, id: &str, tag: &str, summary: &str) {
    let shown = document.schema::<T>();
    document.add(v1("get", path, id, tag, summary).answers(200, JSON, shown, "It."));
}

fn list<T: ToSchema>(
    document: &mut Document,
    path: &'static str,
    id: &str,
    tag: &str,
    summary: &str,
    states: &[&str],
) {
    let shown = document.page::<T>();
    let mut operation = v1("get", path, id, tag, summary).all(page());
    if !states.is_empty() {
        operation = operation.with(query("state", json!({ "enum": states }), "Only those in this state."));
    }
    document.add(operation.answers(200, JSON, shown, "One page."));
}

/// A write with one JSON object as its body.
fn post<B: ToSchema, T: ToSchema>(
    document: &mut Document,
    (path, id, tag): (&'static str, &str, &str),
    summary: &str,
    conflicts: &str,
) -> Operation {
    let (body, shown) = (document.schema::<B>(), document.schema::<T>());
    let operation = v1("post", path, id, tag, summary)
        .takes(JSON, body, true)
        .example(&example(&B::name()))
        .answers(200, JSON, shown, "As it is now.")
        .problem(408, "the body came too slowly")
        .problem(413, "the body is too long");
    if conflicts.is_empty() { operation } else { operation.problem(409, conflicts) }
}

/// An example body of this type, which the tests of the documents also send.
fn example(name: &str) -> Value {
    const LEDGER: &str = "7f2c3f0e-5d1a-4f0e-9d0a-0c7d6a3f1b11";
    let (reason, actor) = ("ticket 4711", "ann");
    match name {
        "AcceptRequest" => json!({ "ledger_id": LEDGER, "reason": reason, "actor": actor }),
        "AcknowledgementRequest" => {
            json!({ "ledger_id": LEDGER, "seq_first": 1, "seq_last": 9, "reason": reason, "actor": actor })
        }
        "ImportRow" => json!({ "reference": "I31", "customer_id": 5, "currency": "EUR", "amount": "12.34" }),
        "NetworkRequest" => json!({ "network": "visa", "reason": reason, "actor": actor }),
        "RepairPage" => json!({ "ledger_id": LEDGER, "items": [] }),
        "ResolveRequest" => json!({ "decision": "not_charged", "reason": reason, "actor": actor }),
        "RunRequest" => json!({ "max_count": 10, "max_amount": { "EUR": "100.00" }, "reason": reason }),
        "ScheduleRunRequest" => json!({ "until": "today", "reason": reason, "actor": actor }),
        "UnbackedAcknowledgementRequest" => {
            json!({ "ledger_id": LEDGER, "reference": "I1", "reason": reason, "actor": actor })
        }
        _ => json!({ "reason": reason, "actor": actor }),
    }
}

fn invoices(document: &mut Document) {
    const STATES: [&str; 5] = ["PENDING", "CHARGING", "PAID", "ATTENTION", "CANCELLED"];
    list::<Invoice>(document, "/v1/invoices", "listInvoices", "invoices", "Invoices by id", &STATES);
    get::<Invoice>(document, "/v1/invoices/{reference}", "getInvoice", "invoices", "One invoice");
    for (path, id, summary) in [
        ("/v1/invoices/{reference}/hold", "holdInvoice", "Hold an invoice: no run claims it"),
        ("/v1/invoices/{reference}/release", "releaseInvoice", "End the hold of an invoice"),
        ("/v1/invoices/{reference}/cancel", "cancelInvoice", "Cancel an invoice, so that no run claims it"),
    ] {
        let conflicts = "attempt-open, invoice-charged, invoice-final; nothing was changed";
        let operation = post::<NoteRequest, Invoice>(document, (path, id, "invoices"), summary, conflicts);
        document.add(operation);
    }
    const OPEN: &str = "attempt-open; nothing was changed";
    for (path, id, summary, conflicts) in [
        ("/v1/customers/{id}/hold", "holdCustomer", "Hold a customer: no run claims its invoices", OPEN),
        ("/v1/customers/{id}/release", "releaseCustomer", "End the hold of a customer", ""),
        (
            "/v1/customers/{id}/instrument-changed",
            "changeInstrument",
            "The customer pays with another instrument",
            "",
        ),
    ] {
        let operation = post::<NoteRequest, Customer>(document, (path, id, "invoices"), summary, conflicts);
        document.add(operation);
    }
    let network = ("/v1/customers/{id}/network", "setNetwork", "invoices");
    let summary = "Set the network of a customer's instrument";
    let operation = post::<NetworkRequest, Customer>(document, network, summary, "");
    document.add(operation);
}

fn charging(document: &mut Document) {
    get::<Deployment>(
        document,
        "/v1/deployment",
        "getDeployment",
        "charging",
        "This store, its ledger and its counts",
    );
    get::<Charging>(document, "/v1/charging", "getCharging", "charging", "Whether all charging is stopped");
    for (path, id, summary) in [
        ("/v1/charging/stop", "stopCharging", "Stop all charging on every replica"),
        ("/v1/charging/start", "startCharging", "Let charging go on"),
    ] {
        let operation = post::<NoteRequest, Charging>(document, (path, id, "charging"), summary, "");
        document.add(operation);
    }
    list::<Attempt>(
        document,
        "/v1/attempts",
        "listAttempts",
        "charging",
        "Attempts by invoice and number",
        &[],
    );
    list::<Resolution>(
        document,
        "/v1/resolutions",
        "listResolutions",
        "charging",
        "Decisions of operators",
        &[],
    );
    let resolve = ("/v1/attempts/{key}/resolve", "resolveAttempt", "charging");
    let conflicts = "attempt-final, attempt-alive, attempt-charged, invoice-charged; nothing was changed";
    let operation = post::<ResolveRequest, Attempt>(document, resolve, "Decide an attempt", conflicts);
    document.add(operation.problem(502, "key-not-voided: nothing was changed"));
    list::<Run>(document, "/v1/runs", "listRuns", "charging", "Runs by id", &[]);
    get::<Run>(document, "/v1/runs/{id}", "getRun", "charging", "One run and its progress");
    let (run, would, request) =
        (document.schema::<Run>(), document.schema::<RunDryRun>(), document.schema::<RunRequest>());
    document.add(
        v1("post", "/v1/runs", "startRun", "charging", "Start a run, or join the unfinished one")
            .takes(JSON, request, false)
            .example(&example("RunRequest"))
            .answers(200, JSON, would, "Of a dry run: what would be claimed.")
            .answers(202, JSON, run, "The run, which goes on.")
            .header(202, "Location", "Path of the run.")
            .problem(408, "the body came too slowly")
            .problem(409, "run-unfinished: another run claims other invoices")
            .problem(413, "the body is too long"),
    );
}

fn ledger(document: &mut Document) {
    let accept = ("/v1/ledger/accept", "acceptLedger", "ledger");
    let operation =
        post::<AcceptRequest, Accepted>(document, accept, "Settle with another ledger", "ledger-unknown");
    document.add(operation.problem(502, "ledger-unknown: the provider did not respond; nothing was changed"));
    let path = "/v1/ledger/acknowledgements";
    list::<Acknowledgement>(document, path, "listAcknowledgements", "ledger", "Explained ledger rows", &[]);
    let (request, shown) =
        (document.schema::<AcknowledgementRequest>(), document.schema::<Acknowledgement>());
    document.add(
        v1("post", path, "acknowledge", "ledger", "Explain ledger rows that belong to no invoice")
            .takes(JSON, request, true)
            .example(&example("AcknowledgementRequest"))
            .answers(201, JSON, shown, "The record.")
            .problem(408, "the body came too slowly")
            .problem(413, "the body is too long"),
    );
    unbacked(document);
    let repair = ("/v1/repairs", "repair", "ledger");
    let summary = "Take in a page of the ledger: what the store has lost is known again";
    let operation =
        post::<RepairPage, RepairReport>(document, repair, summary, "ledger-mismatch: nothing was changed");
    document.add(operation);
}

fn unbacked(document: &mut Document) {
    let path = "/v1/ledger/unbacked-acknowledgements";
    let summary = "Invoices whose charge the ledger has lost";
    list::<UnbackedAcknowledgement>(document, path, "listUnbackedAcknowledgements", "ledger", summary, &[]);
    let (request, shown) =
        (document.schema::<UnbackedAcknowledgementRequest>(), document.schema::<UnbackedAcknowledgement>());
    document.add(
        v1(
            "post",
            path,
            "acknowledgeUnbacked",
            "ledger",
            "Accept that the ledger has lost the charge of an invoice",
        )
        .takes(JSON, request, true)
        .example(&example("UnbackedAcknowledgementRequest"))
        .answers(201, JSON, shown, "The record.")
        .problem(404, "no such invoice")
        .problem(408, "the body came too slowly")
        .problem(
            409,
            "not-unbacked: the invoice is not PAID by a charge, or billing settles with another ledger",
        )
        .problem(413, "the body is too long"),
    );
}

fn subscriptions(document: &mut Document) {
    let tag = "subscriptions";
    let states = ["active", "paused", "ended"];
    list::<Subscription>(document, "/v1/subscriptions", "listSubscriptions", tag, "Subscriptions", &states);
    get::<Subscription>(
        document,
        "/v1/subscriptions/{reference}",
        "getSubscription",
        tag,
        "One subscription",
    );
    let path = "/v1/subscriptions/{reference}/actions";
    list::<SubscriptionAction>(
        document,
        path,
        "listActions",
        tag,
        "What operators did to a subscription",
        &[],
    );
    let (shown, new) = (document.schema::<Subscription>(), new_subscription(document));
    document.add(
        v1("post", "/v1/subscriptions", "createSubscription", tag, "Create a subscription")
            .takes(JSON, new, true)
            .answers(200, JSON, shown.clone(), "It is known already.")
            .answers(201, JSON, shown, "The new one.")
            .problem(404, "it was removed meanwhile")
            .problem(408, "the body came too slowly")
            .problem(409, "subscription-known: with other fields")
            .problem(413, "the body is too long"),
    );
    let request = document.schema::<ChangeRequest>();
    let shown = document.schema::<Subscription>();
    let path = "/v1/subscriptions/{reference}/{change}";
    let mut change = v1(
        "post",
        path,
        "changeSubscription",
        tag,
        "Pause, resume or end a subscription, or change its price",
    )
    .takes(JSON, request, true)
    .answers(200, JSON, shown, "As it is now.")
    .problem(408, "the body came too slowly")
    .problem(409, "subscription-state: the state forbids it; nothing was changed")
    .problem(413, "the body is too long");
    change.parameters.pop();
    let changes = json!({ "enum": ["pause", "resume", "end", "change-price"] });
    document.add(change.with(parameter("path", "change", changes, "What to do.")));
}

fn schedule(document: &mut Document) {
    let tag = "subscriptions";
    get::<ScheduleStatus>(
        document,
        "/v1/schedule",
        "getSchedule",
        tag,
        "The schedule, and the dates that wait",
    );
    let states = ["waiting", "running", "finished"];
    list::<ScheduleRun>(
        document,
        "/v1/schedule/runs",
        "listScheduleRuns",
        tag,
        "Runs of the schedule by date",
        &states,
    );
    let run = ("/v1/schedule/runs", "runSchedule", tag);
    let operation = post::<ScheduleRunRequest, ScheduleRunResult>(
        document,
        run,
        "Invoice and charge what is due up to a date",
        "",
    );
    document.add(operation);
}

fn imports(document: &mut Document) {
    let (report, row) = (document.schema::<ImportReport>(), document.schema::<ImportRow>());
    let switch = |name: &str, text: &str| query(name, json!({ "type": "boolean", "default": false }), text);
    let import = |path, id: &str, summary: &str, row: Value| {
        v1("post", path, id, "imports", summary)
            .describe("Each line is one object; faulty lines are listed and change nothing.")
            .with(switch("dry_run", "Write nothing."))
            .takes(NDJSON, row, false)
            .answers(200, JSON, report.clone(), "Counts, also when lines are at fault.")
            .problem(408, "the body came too slowly")
            .problem(413, "the body is too long")
            .problem(415, "another media type")
            .problem(422, "the first line is no JSON object")
    };
    let invoices = import("/v1/imports", "importInvoices", "Import invoices", row);
    document
        .add(invoices.with(switch("update", "Change known references that are not paid or being charged.")));
    let new = reference("NewSubscription");
    document.add(import("/v1/subscriptions/imports", "importSubscriptions", "Import subscriptions", new));
}

/// The schema of a new subscription. No wire type has this shape, because billing reads it field by field and names
/// each mistake.
fn new_subscription(document: &mut Document) -> Value {
    let number = |least: i64, most: i64| json!({ "anyOf": [{ "type": "integer", "minimum": least, "maximum": most }, { "type": "string" }] });
    let date = |text: &str| json!({ "type": "string", "format": "date", "description": text });
    let text = |text: &str| json!({ "type": "string", "description": text });
    let decimal = json!({ "type": ["string", "number"], "description": "Decimal text or number." });
    let price = json!({
        "type": "object", "required": ["from", "amount"], "additionalProperties": false,
        "properties": { "from": date("Of periods that are due from this date on."), "amount": decimal },
    });
    let schema = json!({
        "type": "object", "additionalProperties": false,
        "description": "Either customer_id or customer_reference; either amount or prices.",
        "required": ["reference", "currency", "starts_on"],
        "properties": {
            "reference": text("Its name; of its invoices the part before @."),
            "customer_id": number(1, i64::from(i32::MAX)),
            "customer_reference": text("A customer by name; it gets a number."),
            "currency": text("ISO 4217."),
            "amount": decimal, "prices": { "type": "array", "minItems": 1, "items": price },
            "anchor_day": number(1, 31), "every_months": number(1, 120),
            "zone": text("IANA time zone."), "at": text("Time of day, HH:MM."),
            "starts_on": date("The first due date is this one or later."),
            "ends_on": { "type": ["string", "null"], "format": "date", "description": "No period is due after it." },
            "holidays": { "enum": ["as-is", "next", "previous"] }, "state": { "const": "active" },
        },
        "example": {
            "reference": "GYM-2", "customer_id": 5, "currency": "EUR", "amount": "9.90", "anchor_day": 31,
            "starts_on": "2027-01-31",
        },
    });
    document.component("NewSubscription", schema)
}

/// A legacy route, which answers 403 or 404 with `--legacy-routes token` or `off`.
fn legacy(method: &'static str, path: &'static str, id: &str, tag: &str, summary: &str) -> Operation {
    let access = if method == "get" { Access::Reader } else { Access::Operator };
    let text = json!({ "type": "string" });
    let operation = Operation::new(method, path, id, tag, access, summary)
        .answers(
            403,
            JSON,
            text.clone(),
            "A token is needed (--legacy-routes token), or another site called.",
        )
        .answers(404, JSON, json!({ "const": "not found" }), "No such id, or --legacy-routes off.");
    if method == "get" {
        let operation = operation.answers(500, JSON, text.clone(), "Something is broken; see the log.");
        return operation.answers(503, JSON, text, "The store cannot be used now.");
    }
    operation.answers(503, JSON, json!({ "const": false }), "The store cannot be used, or load is shed.")
}

fn health(document: &mut Document, path: &'static str, id: &str, shown: Value) {
    let operation = Operation::new("get", path, id, "health", Access::Open, "Whether the process answers");
    document.add(operation.answers(200, JSON, shown, "It does.").problem(503, "overloaded"));
}

fn antaeus(document: &mut Document) {
    health(document, "/rest/health", "antaeusHealth", json!({ "const": "ok" }));
    let tag = "antaeus";
    let customer = json!({
        "type": "object", "required": ["id", "currency"],
        "properties": { "id": { "type": "integer" }, "currency": { "type": "string" } },
    });
    let invoice = json!({
        "type": "object", "required": ["id", "customerId", "amount", "status"],
        "properties": {
            "id": { "type": "integer" }, "customerId": { "type": "integer" },
            "amount": {
                "type": "object", "required": ["value", "currency"],
                "properties": { "value": { "type": "number" }, "currency": { "type": "string" } },
            },
            "status": { "enum": ["PENDING", "PAID"] },
        },
    });
    document.component("AntaeusCustomer", customer);
    document.component("AntaeusInvoice", invoice);
    for (all, one, name, ids) in [
        (
            "/rest/v1/customers",
            "/rest/v1/customers/{id}",
            "AntaeusCustomer",
            ["antaeusCustomers", "antaeusCustomer"],
        ),
        (
            "/rest/v1/invoices",
            "/rest/v1/invoices/{id}",
            "AntaeusInvoice",
            ["antaeusInvoices", "antaeusInvoice"],
        ),
    ] {
        let shown = json!({ "type": "array", "items": reference(name) });
        document.add(legacy("get", all, ids[0], tag, "All, by id").answers(
            200,
            JSON,
            shown,
            "The whole list.",
        ));
        document.add(legacy("get", one, ids[1], tag, "One").answers(200, JSON, reference(name), "It."));
    }
    let pay = legacy("post", "/rest/v1/invoices/pay", "antaeusPay", tag, "Charge every PENDING invoice");
    document.add(pay.answers(200, JSON, json!({ "type": "boolean" }), "Whether all are paid now."));
}

fn invoice_app(document: &mut Document) {
    for (path, id) in [
        ("/healthz", "healthz"),
        ("/health", "health"),
        ("/healthcheck", "healthcheck"),
        ("/liveness", "liveness"),
        ("/readiness", "readiness"),
        ("/v1/healthz", "v1Healthz"),
        ("/rest/ready", "restReady"),
        ("/rest/alive", "restAlive"),
    ] {
        let ok = json!({ "type": "object", "required": ["status"], "properties": { "status": { "const": "ok" } } });
        health(document, path, id, ok);
    }
    let tag = "invoice-app";
    let invoice = json!({
        "type": "object", "required": ["InvoiceId", "Value", "Currency", "IsPaid"],
        "properties": {
            "InvoiceId": { "type": "string" }, "Value": { "type": "number" }, "Currency": { "type": "string" },
            "IsPaid": { "type": "boolean" },
        },
    });
    document.component("InvoiceAppInvoice", invoice);
    let shown = json!({ "type": "array", "items": reference("InvoiceAppInvoice") });
    let list = legacy("get", "/invoices", "invoiceAppInvoices", tag, "All invoices");
    document.add(list.answers(200, JSON, shown, "The whole list."));
    let failed =
        json!({ "type": "object", "required": ["Error"], "properties": { "Error": { "type": "string" } } });
    document.add(
        legacy("post", "/invoices/pay", "invoiceAppPay", tag, "Charge every unpaid invoice")
            .answers(
                200,
                JSON,
                json!({ "type": "object", "maxProperties": 0 }),
                "Done, also when some were refused.",
            )
            .answers(502, JSON, failed, "The provider could not be reached; nothing was charged."),
    );
}
