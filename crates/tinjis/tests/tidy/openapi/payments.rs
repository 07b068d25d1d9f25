//! Operations of payments: the routes that charge, `/v1`, and the health paths. Knows no other service.

use serde_json::{Value, json};

use super::document::{
    Access, Document, JSON, Operation, PROBLEM, TEXT, own_document, page, parameter, reference,
};
use api::payments::{DeclareRequest, Deployment, DeploymentList, LedgerPage, LedgerRow, ReferenceCharged};
use api::problem::Problem;
use payments::faults::script::Fault;

const ABOUT: &str = "Charges customers, once per key. A run-time fault script may answer anything else beside a charge. \
     Requests and responses of `/v1` change by addition only.";

const TAGS: [(&str, &str); 5] = [
    ("api", "This document."),
    ("charge", "Routes of the three replaced services; headers that they do not know make them exact."),
    ("controls", "Rates, faults and deployments, set by operators."),
    ("health", "Health paths of the replaced services and of their known forks."),
    ("ledger", "What was charged, refused and voided under the caller's account."),
];

const TOML: &str = "application/toml";

/// Builds the document of payments.
pub(super) fn document() -> Value {
    let mut document = Document::default();
    document.schema::<Problem>();
    own_document(&mut document);
    charge(&mut document);
    ledger(&mut document);
    controls(&mut document);
    health(&mut document);
    let header = |name: &str, text: &str| json!({ "type": "apiKey", "in": "header", "name": name, "description": text });
    let schemes = json!({
        "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A signed token." },
        "certificate": { "type": "mutualTLS", "description": "A client certificate whose name is on the allow-list." },
        "operator": header("Operator-Token", "A line of --operator-token-file."),
        "token": header("X-Token", "A line of --payments-api-token. Not needed with --allow-anonymous."),
    });
    document.finish("Tinjis payments", ABOUT, 9000, &TAGS, schemes)
}

/// An operation behind credentials, with the answers that all of them may give.
fn guarded(
    method: &'static str,
    path: &'static str,
    id: &str,
    tag: &str,
    access: Access,
    summary: &str,
) -> Operation {
    let mut operation = Operation::new(method, path, id, tag, access, summary)
        .answers(403, TEXT, json!({ "type": "string" }), "The caller is not known.")
        .problem(429, "the account exceeds its rate limit; nothing was executed")
        .problem(500, "something is broken; see the log")
        .problem(503, "the ledger cannot be used now, or the service is overloaded or starting");
    for status in [429, 503] {
        operation = operation.header(status, "Retry-After", "Seconds.").header(
            status,
            "Not-Executed",
            "true: nothing was executed. Absent: unknown.",
        );
    }
    operation
}

fn request_header(name: &str, text: &str) -> Value {
    parameter("header", name, json!({ "type": "string" }), text)
}

fn preconditions() -> [Value; 3] {
    [
        request_header("Deployment-Id", "The store of billing that sends, a UUID."),
        request_header(
            "Expect-Ledger",
            "The ledger that the caller settled with, a UUID; in another one nothing is executed.",
        ),
        request_header("Ledger-Seen", "The highest Ledger-Seq that the caller has seen."),
    ]
}

fn replies(field: &str, result: &Value) -> Value {
    json!({ "type": "object", "required": [field], "properties": { field: result } })
}

/// A route that charges.
fn charging(document: &mut Document, path: &'static str, id: &str, summary: &str, body: Value) -> Operation {
    let charged = document.schema::<ReferenceCharged>();
    let unreadable = json!({ "type": "object" });
    let mut operation = guarded("post", path, id, "charge", Access::Account, summary)
        .with(request_header(
            "Idempotency-Key",
            "Name of the charge, 1 to 64 visible ASCII characters; executed once.",
        ))
        .all(preconditions())
        .takes(JSON, body, false)
        .example(&charge_example())
        .answers(400, JSON, unreadable, "A field is missing or wrong.")
        .answers(400, PROBLEM, reference("Problem"), "")
        .problem(403, "key-foreign, or a page of another site called")
        .problem(408, "the body came too slowly")
        .answers(
            409,
            PROBLEM,
            json!({ "anyOf": [charged, reference("Problem")] }),
            "key-in-flight or reference-charged.",
        )
        .header(409, "Retry-After", "Seconds; of key-in-flight.")
        .problem(410, "key-voided")
        .problem(412, "ledger-mismatch, ledger-behind or deployment-unknown; nothing was executed")
        .problem(413, "the body is too long")
        .problem(422, "key-reused");
    for status in [400, 403, 409, 410, 412, 422, 429, 500, 503] {
        operation = operation.header(status, "Idempotency-Key", "The key of the request.");
    }
    operation.header(412, "Not-Executed", "true: nothing was executed.")
}

fn charge_example() -> Value {
    json!({ "id": "I1", "customer_id": 7, "currency": "EUR", "value": 12.34 })
}

fn decided(operation: Operation, statuses: &[u16]) -> Operation {
    statuses.iter().fold(operation, |operation, &status| {
        operation
            .header(status, "Decline", "Beside a key, of a refusal: class=CLASS; code=CODE.")
            .header(status, "Idempotency-Key", "The key of the request.")
            .header(status, "Idempotency-Replayed", "true: this was decided before.")
            .header(status, "Ledger-Seq", "Beside a key: the row that the answer was given from.")
            .header(status, "Ledger-Id", "The ledger.")
    })
}

fn charge(document: &mut Document) {
    let body = json!({
        "type": "object",
        "description": "A charge. Which fields a route needs differs; see the wire contract. Names match in any letter case.",
        "properties": {
            "customer_id": { "type": "integer" },
            "value": { "type": ["number", "null"], "description": "Major units, such as 12.34." },
            "currency": { "type": ["string", "object"], "description": "ISO 4217. An object counts as an empty text." },
            "id": { "type": ["string", "null"], "description": "The reference of what is charged." },
        },
    });
    let body = document.component("Charge", body);
    let result = replies("result", &json!({ "enum": ["true", "false"] }));
    let antaeus =
        charging(document, "/", "chargeAntaeus", "Charge, as for Antaeus; also POST //", body.clone());
    document.add(decided(antaeus.answers(200, JSON, result, "Whether it was charged."), &[200]));
    let charged = json!({
        "type": "object", "required": ["id", "result"],
        "properties": { "id": { "type": "string", "pattern": "^[0-9a-f]{20}$" }, "result": { "const": true } },
    });
    let refused = json!({
        "type": "object", "required": ["result", "message"],
        "properties": { "result": { "const": false }, "message": { "type": "string" } },
    });
    for (path, id) in [("/payments", "chargeChallenge"), ("/payments.json", "chargeChallengeJson")] {
        let operation = charging(document, path, id, "Charge, as the challenge's payments app", body.clone())
            .takes("application/x-www-form-urlencoded", body.clone(), false)
            .example(&charge_example())
            .answers(201, JSON, charged.clone(), "Charged.")
            .answers(422, JSON, refused.clone(), "");
        document.add(decided(operation, &[201, 422]));
    }
    let id = json!({ "type": "object", "required": ["id"], "properties": { "id": { "type": "string" } } });
    let not_paid = json!({
        "type": "object", "required": ["id", "error"],
        "properties": { "id": { "type": "string" }, "error": { "type": "string" } },
    });
    let provider =
        charging(document, "/payments/pay", "chargeProvider", "Charge, as the payment-provider", body)
            .answers(200, JSON, id, "Charged.")
            .answers(402, JSON, not_paid, "Refused.");
    document.add(decided(provider, &[200, 402]));
}

fn ledger(document: &mut Document) {
    let (rows, row) = (document.schema::<LedgerPage>(), document.schema::<LedgerRow>());
    let list =
        guarded("get", "/v1/ledger", "listLedger", "ledger", Access::Account, "Rows of the account, by seq");
    document.add(list.all(page()).answers(200, JSON, rows, "One page.").problem(400, "validation"));
    let one =
        guarded("get", "/v1/ledger/{key}", "getLedgerRow", "ledger", Access::Account, "The row of a key");
    document.add(
        one.answers(200, JSON, row.clone(), "It.")
            .problem(400, "validation: no key")
            .problem(403, "key-foreign")
            .problem(404, "the account has no such key"),
    );
    let path = "/v1/ledger/{key}/void";
    let void = guarded(
        "post",
        path,
        "voidKey",
        "ledger",
        Access::Account,
        "A key is not charged, and never will be",
    )
    .all(preconditions())
    .answers(200, JSON, row, "VOIDED, or REFUSED as before.")
    .header(200, "Ledger-Seq", "The row.")
    .problem(400, "validation: no key, or a faulty header")
    .problem(403, "key-foreign, or a page of another site called")
    .problem(409, "the key was charged")
    .problem(412, "ledger-mismatch, ledger-behind or deployment-unknown; nothing was executed");
    document.add(void);
}

fn controls(document: &mut Document) {
    let rates = json!({
        "type": "object", "description": "Shares of outcomes, from 0 to 1.", "required": ["success"], "additionalProperties": false,
        "example": { "success": 0.9, "declines": { "insufficient_funds": 0.08, "stolen_card": 0.01 } },
        "properties": {
            "success": { "type": "number", "minimum": 0, "maximum": 1 },
            "declines": { "type": "object", "additionalProperties": { "type": "number", "minimum": 0, "maximum": 1 } },
        },
    });
    let (rates, script) = (document.component("Rates", rates), document.component("FaultScript", script()));
    for (path, what, schema, ids) in [
        ("/v1/rates", "rates", rates, ["getRates", "setRates", "resetRates"]),
        ("/v1/faults", "the fault script", script, ["getFaults", "setFaults", "resetFaults"]),
    ] {
        let is_script = path == "/v1/faults";
        let shown = |operation: Operation| {
            let operation =
                operation.answers(200, JSON, schema.clone(), "In force.").problem(400, "validation");
            if is_script { operation.answers(200, TOML, json!({ "type": "string" }), "") } else { operation }
        };
        let summary = format!("Show {what}");
        document.add(shown(guarded("get", path, ids[0], "controls", Access::Account, &summary)));
        let write = |method, id: &str, summary: &str| {
            shown(guarded(method, path, id, "controls", Access::AccountOperator, summary))
                .problem(403, "operator-token, run-time-faults-off, or a page of another site called")
        };
        let put = write("put", ids[1], &format!("Set {what}"))
            .takes(JSON, schema.clone(), true)
            .problem(408, "the body came too slowly")
            .answers(413, TEXT, json!({ "type": "string" }), "The body is too long.")
            .problem(413, "the body is too long")
            .problem(415, "another media type");
        let put = if is_script { put.takes(TOML, json!({ "type": "string" }), true) } else { put };
        document.add(put);
        document.add(write("delete", ids[2], &format!("Reset {what} to what the settings say")));
    }
    let (deployments, deployment) = (document.schema::<DeploymentList>(), document.schema::<Deployment>());
    let request = document.schema::<DeclareRequest>();
    let list = guarded(
        "get",
        "/v1/deployments",
        "listDeployments",
        "controls",
        Access::Account,
        "Deployments of the account",
    );
    document.add(list.answers(200, JSON, deployments, "All."));
    let summary = "Declare a deployment";
    let declaration = json!({
        "deployment_id": "00000000-0000-4000-8000-000000000001", "why": "restored from a copy", "actor": "ann",
    });
    document.add(
        guarded("post", "/v1/deployments", "declareDeployment", "controls", Access::AccountOperator, summary)
            .takes(JSON, request, true)
            .example(&declaration)
            .answers(200, JSON, deployment.clone(), "It was known already.")
            .answers(201, JSON, deployment, "The new one.")
            .problem(400, "validation")
            .problem(403, "operator-token, or a page of another site called")
            .problem(408, "the body came too slowly")
            .problem(409, "the account has the most deployments")
            .answers(413, TEXT, json!({ "type": "string" }), "The body is too long.")
            .problem(413, "the body is too long"),
    );
}

fn script() -> Value {
    let count = |least: i64| json!({ "type": "integer", "minimum": least });
    let text = json!({ "type": "string" });
    let rule = json!({
        "type": "object", "required": ["fault"], "additionalProperties": false,
        "properties": {
            "fault": { "enum": Fault::NAMES }, "share": { "type": "number", "minimum": 0, "maximum": 1 },
            "customer_id": { "type": "integer" }, "amount_minor_min": { "type": "integer" },
            "amount_minor_max": { "type": "integer" }, "route": { "enum": ["/", "/payments", "/payments/pay"] },
            "reference": text, "reference_prefix": text, "currency": text, "account": text,
            "from": { "type": ["string", "integer"], "description": "A moment, or seconds after the script was set." },
            "until": { "type": ["string", "integer"], "description": "As from." },
            "nth": count(1), "times": count(1), "latency_ms": count(0), "decline": text,
            "status": { "type": "integer", "minimum": 200, "maximum": 599 }, "body": text, "content_type": text,
            "retry_after_s": { "type": "integer", "minimum": 0, "maximum": 3600 }, "execute": { "type": "boolean" },
        },
    });
    json!({
        "type": "object", "additionalProperties": false, "description": "Rules, of which the first that matches wins.",
        "properties": { "seed": { "type": "integer" }, "rule": { "type": "array", "maxItems": 100, "items": rule } },
        "example": { "seed": 8213, "rule": [{ "fault": "reset", "share": 0.05 }] },
    })
}

fn health(document: &mut Document) {
    let alive = replies("alive", &json!({ "const": "true" }));
    for (path, id, shown) in [
        ("/ping", "ping", replies("ping", &json!({ "const": "pong" }))),
        ("/healthz", "healthz", replies("status", &json!({ "const": "ok" }))),
        ("/health", "health", alive.clone()),
        ("/health.json", "healthJson", alive.clone()),
        ("/healthcheck", "healthcheck", alive.clone()),
        ("/rest/health", "restHealth", alive.clone()),
        ("/rest/ready", "restReady", alive.clone()),
        ("/rest/alive", "restAlive", alive.clone()),
        ("/v1/healthz", "v1Healthz", alive.clone()),
        ("/liveness", "liveness", alive.clone()),
        ("/readiness", "readiness", alive),
    ] {
        let operation =
            Operation::new("get", path, id, "health", Access::Open, "Whether the process answers");
        document.add(operation.answers(200, JSON, shown, "It does.").problem(503, "overloaded"));
    }
}
