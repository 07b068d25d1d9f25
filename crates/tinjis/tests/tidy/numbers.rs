//! The pages on Kubernetes objects state the numbers that are shipped, and the page on limits those of the code. Knows
//! where a number is set and how a page states it. A changed number fails a row here: correct the page, its arithmetic
//! too, and then the row.

use crate::tree::{file, none};

const PAGES: &str = "docs/explanation/kubernetes";
const VALUES: &str = "deploy/chart/values.yaml";
const DEPLOYMENT: &str = "deploy/chart/templates/deployment.yaml";
const SCALING: &str = "deploy/chart/templates/scaling.yaml";
const BILLING: &str = "deploy/envs/base/antaeus.values.yaml";
const PAYMENTS: &str = "deploy/envs/base/payments.values.yaml";
const BASE: &str = "deploy/envs/base/base.yaml.in";
const AUTOSCALING: &str = "autoscaling: {enabled: true, minReplicas: 3, maxReplicas: 6, cpuPercent: 70}";

const LIMITS_PAGE: &str = "docs/reference/limits.md";
const SERVER: &str = "crates/chassis/src/server/limits.rs";
const CLIENT: &str = "crates/chassis/src/client/mod.rs";
const POSTGRES: &str = "crates/chassis/src/postgres/settings.rs";
const SHUTDOWN: &str = "crates/chassis/src/shutdown.rs";
const CURRENCIES: &str = "crates/chassis/src/currency.rs";
const WIRE: &str = "crates/api/src/payments.rs";
const DELIVER: &str = "crates/payments/src/http/deliver.rs";
const CONTROLS: &str = "crates/payments/src/http/controls.rs";
const FAULTS: &str = "crates/payments/src/faults/script.rs";
const IMPORTS: &str = "crates/billing/src/http/v1/imports.rs";
const ATTEMPTS: &str = "crates/billing/src/http/v1/attempts.rs";
const PAY: &str = "crates/billing/src/http/pay.rs";
const ROWS: &str = "crates/billing/src/import_row.rs";
const SUBSCRIPTION: &str = "crates/billing/src/subscription.rs";
const SUPERVISOR: &str = "crates/billing/src/charge/supervisor.rs";

/// The file that sets a number, the text there, the page, and the text on the page.
const NUMBERS: &[(&str, &str, &str, &str)] = &[
    (VALUES, "stopDelaySeconds: 5\n", "load-balancer.md", "which sleeps 5 s (`stopDelaySeconds`)"),
    (VALUES, "gracePeriodSeconds: 40\n", "load-balancer.md", "The grace period of 40 s"),
    (
        "crates/chassis/src/shutdown.rs",
        "GRACE: Duration = Duration::from_secs(25)",
        "load-balancer.md",
        "25 s, and 1 s to give up",
    ),
    (
        "crates/chassis/src/server/limits.rs",
        "TLS_AGE_MAX: Duration = Duration::from_secs(600)",
        "load-balancer.md",
        "once the connection is 10 minutes old",
    ),
    (
        "crates/chassis/src/client/mod.rs",
        "IDLE: Duration = Duration::from_secs(30)",
        "load-balancer.md",
        "idle for 30 s",
    ),
    (
        "crates/chassis/src/client/mod.rs",
        "CONNECT_TIMEOUT: Duration = Duration::from_secs(2)",
        "load-balancer.md",
        "attempt to connect ends after 2 s",
    ),
    (
        "crates/chassis/src/client/mod.rs",
        "DEADLINE: Duration = Duration::from_secs(10)",
        "load-balancer.md",
        "the call ends after 10 s",
    ),
    (
        "crates/chassis/src/server/limits.rs",
        "const IDLE_TIMEOUT: Duration = Duration::from_secs(360)",
        "load-balancer.md",
        "| our servers | 360 s",
    ),
    (BILLING, AUTOSCALING, "autoscaler.md", "CPU at 70 % of the request, 3 to 6 pods"),
    (PAYMENTS, AUTOSCALING, "autoscaler.md", "CPU at 70 % of the request, 3 to 6 pods"),
    (SCALING, "stabilizationWindowSeconds: 300\n", "autoscaler.md", "Scaling down waits for 300 s"),
    (SCALING, "{type: Pods, value: 1, periodSeconds: 60}", "autoscaler.md", "at most one pod in 60 s"),
    (VALUES, "connectionsPerPod: 12\n", "autoscaler.md", "Each pod may open 12 connections"),
    (VALUES, "connectionsMax: 100\n", "autoscaler.md", "× 12 = 84 ≤ 100"),
    (
        BILLING,
        "disruptionBudget: {maxUnavailable: 1}",
        "disruption-budget.md",
        "`disruptionBudget.maxUnavailable: 1`",
    ),
    (
        PAYMENTS,
        "disruptionBudget: {maxUnavailable: 1}",
        "disruption-budget.md",
        "`disruptionBudget.maxUnavailable: 1`",
    ),
    (
        SCALING,
        "unhealthyPodEvictionPolicy: AlwaysAllow",
        "disruption-budget.md",
        "`unhealthyPodEvictionPolicy: AlwaysAllow`",
    ),
    (
        DEPLOYMENT,
        "rollingUpdate: {maxUnavailable: 0, maxSurge: 1}",
        "disruption-budget.md",
        "of the rollout | 0 and 1 |",
    ),
    (DEPLOYMENT, "maxSkew: 1\n", "topology-spread.md", "| `maxSkew` | 1 |"),
    (
        BILLING,
        "spread: {nodes: ScheduleAnyway, zones: ScheduleAnyway}",
        "topology-spread.md",
        "| `ScheduleAnyway` |",
    ),
    (VALUES, "startupFailures: 30\n", "probes.md", "1 s × 30"),
    (VALUES, "periodSeconds: 5\n", "probes.md", "5 s × 6"),
    (VALUES, "timeoutSeconds: 2\n", "probes.md", "Each has 2 s to answer"),
    (DEPLOYMENT, "failureThreshold: 6\n", "probes.md", "5 s × 6"),
    (DEPLOYMENT, "failureThreshold: 2\n", "probes.md", "5 s × 2"),
    (VALUES, "requests: {cpu: 50m, memory: 32Mi,", "resources.md", "| CPU | 50m | 2 cores |"),
    (VALUES, "limits: {cpu: \"2\", memory: 128Mi,", "resources.md", "| memory | 32Mi | 128Mi |"),
    (BASE, "pods: \"12\"\n", "quotas.md", "| `pods` | 12 |"),
    (BASE, "limits.cpu: \"24\"\n", "quotas.md", "12 × 2 cores exactly"),
    (VALUES, "duration: 2160h\n", "mtls.md", "2160h (90 days)"),
    (VALUES, "renewBefore: 720h\n", "mtls.md", "renewed 720h (30 days)"),
    (VALUES, "expirationSeconds: 3600\n", "serviceaccount-tokens.md", "audience `payments`, 3,600 s"),
];

/// The file that sets a limit, the text there, and the text on the page of limits.
const LIMITS: &[(&str, &str, &str)] = &[
    (SERVER, "const BODY_BYTES_MAX: u64 = 1024 * 1024;", "| body of a request | 1,048,576 bytes |"),
    (DELIVER, "const BODY_BYTES_MAX: usize = 1024 * 1024;", "| body of a request | 1,048,576 bytes |"),
    (IMPORTS, "const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;", "| 16 × 2³⁰ bytes; a line"),
    (ROWS, "ROW_BYTES_MAX: usize = 16 * 1024;", "a line 16,384 bytes |"),
    (CONTROLS, "BODY_BYTES_MAX: usize = 64 * 1024;", "`PUT /v1/faults` of payments | 65,536 bytes |"),
    (
        "crates/billing/src/http/v1/repairs.rs",
        "BODY_BYTES_MAX: usize = LEDGER_PAGE_JSON_BYTES_MAX;",
        "| body of `POST /v1/repairs` | 5,121,256 bytes: the longest page of the ledger |",
    ),
    (ATTEMPTS, "RESOLVE_BODY_BYTES_MAX: usize = 16 * 1024;", "`/v1/ledger/accept` | 16,384 bytes |"),
    (SERVER, "HEADER_BYTES_MAX: usize = 32 * 1024;", "headers together | 32,768 bytes,"),
    (SERVER, "HEADERS_MAX: usize = 100;", "bytes, 100 headers |"),
    (SERVER, "IN_FLIGHT_MAX: usize = 1024;", "in one process | 1,024 |"),
    (
        "crates/chassis/src/caller/rate.rs",
        "RATE_MAX: NonZeroU32 = NonZeroU32::new(50_000)",
        "| 50,000 per second (`--caller-rate-max`) |",
    ),
    (SERVER, "CONNECTIONS_MAX: usize = 4096;", "| 4,096, or fewer"),
    (SERVER, "IDLE_MIN: Duration = Duration::from_secs(2);", "for at least 2 s, makes room"),
    ("crates/billing/src/store/mod.rs", "BATCH_MAX: usize = 1000;", "page of a list | 1,000 rows,"),
    (WIRE, "LEDGER_PAGE_MAX: usize = 1000;", "page of a list | 1,000 rows,"),
    ("crates/billing/src/http/v1/page.rs", "LIMIT_DEFAULT: usize = 100;", "rows, 100 by default |"),
    ("crates/payments/src/http/v1.rs", "LIMIT_DEFAULT: usize = 100;", "rows, 100 by default |"),
    ("crates/payments/src/keys.rs", "LEN_MAX: usize = 64;", "| 64 visible ASCII characters |"),
    ("crates/billing/src/reference.rs", "LEN_MAX: usize = 200;", "invoice | 200 bytes; of a"),
    (SUBSCRIPTION, "LEN_MAX: usize = Reference::LEN_MAX - PERIOD_SUFFIX_BYTES;", "subscription 189 |"),
    (SUBSCRIPTION, "PERIOD_SUFFIX_BYTES: usize = 11;", "subscription 189 |"),
    (
        "crates/billing/src/money.rs",
        "AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;",
        "| amount | 10¹⁵ minor units",
    ),
    (
        "crates/payments/src/amount.rs",
        "AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;",
        "| amount | 10¹⁵ minor units",
    ),
    (
        "crates/payments/src/config.rs",
        "SCRIPT_BYTES_MAX: u64 = 1024 * 1024;",
        "`--deployments` | a regular file of at most 1,048,576 bytes |",
    ),
    (
        "crates/billing/src/config/schedule.rs",
        "HOLIDAYS_BYTES_MAX: u64 = 1024 * 1024;",
        "`--deployments` | a regular file of at most 1,048,576 bytes |",
    ),
    (
        "crates/tinjis/src/deployments/table.rs",
        "FILE_BYTES_MAX: u64 = 1024 * 1024;",
        "`--deployments` | a regular file of at most 1,048,576 bytes |",
    ),
    (CURRENCIES, "(\"EUR\", 2)", "ISO 4217 gives the currency: EUR 2,"),
    (CURRENCIES, "(\"JPY\", 0)", "JPY 0,"),
    (CURRENCIES, "(\"KWD\", 3)", "KWD 3 |"),
    (ROWS, "*id >= 1);", "| `customer_id` | 1 to"),
    (ROWS, "a whole number from 1 to {}\", i32::MAX)", "1 to 2,147,483,647 |"),
    (SERVER, "FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);", "| to the first byte | 60 s |"),
    (SERVER, "HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);", "| TLS handshake | 10 s |"),
    (SERVER, "HEADER_TIMEOUT: Duration = Duration::from_secs(10);", "| head of a request | 10 s |"),
    (SERVER, "BODY_TIMEOUT: Duration = Duration::from_secs(60);", "between two parts of it | 60 s |"),
    (SERVER, "const IDLE_TIMEOUT: Duration = Duration::from_secs(360);", "the next request | 360 s |"),
    (SERVER, "TLS_AGE_MAX: Duration = Duration::from_secs(600);", "| age of a TLS connection | 600 s |"),
    ("crates/billing/src/config.rs", "IN_FLIGHT_MAX: &str = \"64\";", "| 64 (`--in-flight-max`) |"),
    (CLIENT, "DEADLINE: Duration = Duration::from_secs(10);", "call of the provider | 10 s, of which"),
    (CLIENT, "CONNECT_TIMEOUT: Duration = Duration::from_secs(2);", "of which 2 s to connect |"),
    (CLIENT, "IDLE: Duration = Duration::from_secs(30);", "| closed after 30 s |"),
    (
        "crates/billing/src/charge/mod.rs",
        "LEASE: Duration = crate::store::lease::LONGEST;",
        "it over after that | 60 s |",
    ),
    ("crates/billing/src/store/lease.rs", "LONGEST_MS: i64 = 60_000;", "it over after that | 60 s |"),
    (SUPERVISOR, "RENEW_EVERY: Duration = Duration::from_secs(5);", "lease of a run, renewed every 5 s:"),
    (SUPERVISOR, "RUN_LEASE: Duration = Duration::from_secs(15);", "adopts it after that | 15 s |"),
    (
        "crates/billing/src/charge/mod.rs",
        "RETRY_AFTER_MAX: Duration = Duration::from_secs(60);",
        "provider that is obeyed | 60 s |",
    ),
    (PAY, "ANTAEUS_WAIT: Duration = Duration::from_secs(4);", "| 4 s (Antaeus), "),
    (PAY, "INVOICE_APP_WAIT: Duration = Duration::from_secs(30);", "30 s (invoice-app) |"),
    (
        "crates/billing/src/charge/resolve.rs",
        "REQUEST_LIFE_MAX: Duration = Duration::from_secs(16 * 60);",
        "from 16 minutes after its last request",
    ),
    (
        "crates/tinjis/src/verify/blocks.rs",
        "IN_MEMORY: usize = 2048;",
        "compare without a temporary file | about 60,000 |",
    ),
    (
        "crates/tinjis/src/verify/blocks.rs",
        "it needs about 200 bytes for each invoice",
        "| about 200 bytes for each invoice;",
    ),
    (
        "crates/reconcile/src/findings.rs",
        "NAMED_FINDINGS_MAX: usize = 10_000;",
        "checked again; all are counted | 10,000 |",
    ),
    (
        "crates/tinjis/src/verify/mod.rs",
        "KEYS_ASKED_MAX: usize = 10_000;",
        "whose key the ledger is asked for | 10,000 |",
    ),
    (
        "crates/tinjis/src/deployments/table.rs",
        "DEPLOYMENTS_MAX: usize = 64;",
        "| deployments of one table | 64 |",
    ),
    (
        "crates/tinjis/src/deployments/bucket.rs",
        "BUCKETS: u16 = 1024;",
        "| buckets that they share | 1,024 |",
    ),
    ("deploy/envs/base/postgres.yaml", "image: postgres:15\n", "| version 15 is tested |"),
    (POSTGRES, "CONNECTIONS_MAX: usize = 12;", "| 12 (`--database-connections-max`) |"),
    (POSTGRES, "ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);", "a free connection | 4 s |"),
    (POSTGRES, "STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);", "| one statement | 15 s |"),
    (FAULTS, "RULES_MAX: usize = 100;", "| rules of a script | 100 |"),
    (FAULTS, "LATENCY_MAX: Duration = Duration::from_secs(3600);", "| `latency_ms` | 3,600,000 |"),
    (FAULTS, "STATUS_BODY_BYTES_MAX: usize = 4096;", "`status` fault | 4,096 bytes |"),
    (FAULTS, "RETRY_AFTER_MAX_S: u32 = 3600;", "`retry_after_s` of a `status` fault | 3,600 |"),
    (FAULTS, "TEXT_LEN_MAX: usize = 256;", "rule compares with | 256 bytes |"),
    (
        "crates/payments/src/faults/script/fields.rs",
        "AFTER_MAX_S: i64 = 366 * 24 * 3600;",
        "as a number | 31,622,400 s, a leap year |",
    ),
    (
        "crates/payments/src/faults/mod.rs",
        "SUBJECTS_MAX: usize = 1 << 18;",
        "| at least 262,144; the oldest are forgotten |",
    ),
    (SHUTDOWN, "GRACE: Duration = Duration::from_secs(25);", "calls in flight | 25 s, and"),
    (SHUTDOWN, "HARD_GRACE: Duration = Duration::from_secs(1);", "and 1 s to give up |"),
    (VALUES, "stopDelaySeconds: 5\n", "(`stopDelaySeconds`) | 5 s |"),
    (VALUES, "gracePeriodSeconds: 40\n", "(`gracePeriodSeconds`) | 40 s |"),
];

/// Numbers on the page of limits that are no limits: status codes, and names.
const NO_LIMITS: &[&str] = &[
    "| 400 |",
    "| 408,",
    "| 413 |",
    "| 413; an error",
    "| 429 with",
    "| 431 |",
    "answers 400 and `--faults` exits with 64;",
    "| 503 with",
    "`/v1`",
    "/v1/",
    // One process holds the lock on a SQLite file; the service tests start a second process.
    "| 1; a second one ends with exit code 1 |",
];

/// Lines of the page of limits with a digit outside the compared texts.
fn not_compared(page: &str) -> Vec<String> {
    let compared = LIMITS.iter().map(|(_, _, text)| *text).chain(NO_LIMITS.iter().copied());
    // Texts are marked and not removed: a bar between two cells may belong to two texts.
    let mut is_compared = vec![false; page.len()];
    for (at, text) in compared.flat_map(|text| page.match_indices(text)) {
        is_compared[at..at + text.len()].fill(true);
    }
    let mut lines: Vec<&str> = page
        .char_indices()
        .filter(|(at, character)| character.is_numeric() && !is_compared[*at])
        .map(|(at, _)| {
            let begin = page[..at].rfind('\n').map_or(0, |end| end + 1);
            page[begin..].lines().next().unwrap_or_default()
        })
        .collect();
    lines.dedup();
    lines.into_iter().map(str::to_owned).collect()
}

/// The mistake in a row, if there is one.
fn finding(source: &str, number: &str, page: &str, text: &str) -> Option<String> {
    let number_is_set = file(source).text.contains(number);
    let page_says_it = file(page).text.contains(text);
    match (number_is_set, page_says_it) {
        (true, true) => None,
        (false, _) => Some(format!("{source} no longer has `{}`: correct {page}", number.trim_end())),
        (true, false) => Some(format!("{page} does not say `{text}`, as {source} has it")),
    }
}

#[test]
fn the_pages_on_kubernetes_objects_say_the_numbers_that_are_shipped() {
    let findings = NUMBERS
        .iter()
        .filter_map(|(source, number, page, text)| finding(source, number, &format!("{PAGES}/{page}"), text));
    none("numbers", &findings.collect::<Vec<_>>());
}

#[test]
fn the_page_on_limits_says_the_constants_of_the_code_and_no_other_number() {
    let findings =
        LIMITS.iter().filter_map(|(source, number, text)| finding(source, number, LIMITS_PAGE, text));
    none("limits", &findings.collect::<Vec<_>>());
    none("numbers that are compared with no constant", &not_compared(&file(LIMITS_PAGE).text));
    assert_eq!(api::payments::LEDGER_PAGE_JSON_BYTES_MAX, 5_121_256, "{LIMITS_PAGE}");
}

#[test]
fn a_number_that_changed_is_found() {
    let page = format!("{PAGES}/load-balancer.md");
    assert!(finding(VALUES, "stopDelaySeconds: 6\n", &page, "40 s").is_some());
    assert!(finding(VALUES, "stopDelaySeconds: 5\n", &page, "sleeps 6 s").is_some());
    let page = file(LIMITS_PAGE).text;
    assert_eq!(not_compared(&page.replace("| 360 s |", "| 361 s |")).len(), 1);
    assert_eq!(not_compared(&format!("{page}| files | 7 |\n")), ["| files | 7 |"]);
}
