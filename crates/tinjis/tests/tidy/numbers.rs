//! That the pages on Kubernetes objects say the numbers that are shipped. Knows where a number is set and how a page says it.
//! A changed number is a red row here: correct the page, its arithmetic too, and then the row.

use crate::tree::{file, none};

const PAGES: &str = "docs/explanation/kubernetes";
const VALUES: &str = "deploy/chart/values.yaml";
const DEPLOYMENT: &str = "deploy/chart/templates/deployment.yaml";
const SCALING: &str = "deploy/chart/templates/scaling.yaml";
const BILLING: &str = "deploy/envs/base/antaeus.values.yaml";
const PAYMENTS: &str = "deploy/envs/base/payments.values.yaml";
const BASE: &str = "deploy/envs/base/base.yaml.in";
const AUTOSCALING: &str = "autoscaling: {enabled: true, minReplicas: 3, maxReplicas: 6, cpuPercent: 70}";

/// Where a number is set, the text there, the page, and how the page says it.
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
        "TLS_AGE: Duration = Duration::from_secs(600)",
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
        "const IDLE: Duration = Duration::from_secs(360)",
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

/// What is wrong with a row, if anything is.
fn finding((source, number, page, text): (&str, &str, &str, &str)) -> Option<String> {
    let page = format!("{PAGES}/{page}");
    let number_is_set = file(source).text.contains(number);
    let page_says_it = file(&page).text.contains(text);
    match (number_is_set, page_says_it) {
        (true, true) => None,
        (false, _) => Some(format!("{source} no longer has `{}`: correct {page}", number.trim_end())),
        (true, false) => Some(format!("{page} does not say `{text}`, as {source} has it")),
    }
}

#[test]
fn the_pages_on_kubernetes_objects_say_the_numbers_that_are_shipped() {
    none("numbers", &NUMBERS.iter().copied().filter_map(finding).collect::<Vec<_>>());
}

#[test]
fn a_number_that_changed_is_found() {
    assert!(finding((VALUES, "stopDelaySeconds: 6\n", "load-balancer.md", "40 s")).is_some());
    assert!(finding((VALUES, "stopDelaySeconds: 5\n", "load-balancer.md", "sleeps 6 s")).is_some());
}
