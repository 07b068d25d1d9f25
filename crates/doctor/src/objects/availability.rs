//! Workloads that must survive an eviction: at least two replicas by autoscaler or by object, and a disruption budget that
//! keeps one of them. Pure; evicts nothing.

use serde_json::Value;

use super::finding::{Finding, Severity};
use super::snapshot::{Kind, Object, Snapshot};
use super::workloads::deployed;
use crate::expectations::Expectations;
use crate::inventory::selects;

pub(crate) const PINNED_AUTOSCALER: &str = "pinned-autoscaler";
pub(crate) const TOO_FEW_REPLICAS: &str = "too-few-replicas";
pub(crate) const NO_BUDGET: &str = "no-budget";

pub(crate) fn examine(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let required = deployed(expectations, snapshot)
        .filter(|workload| expectations.evictions.contains(&workload.expected.name));
    required.flat_map(|workload| problems(workload.object, snapshot)).collect()
}

/// The problems that keep a workload from surviving an eviction.
pub(crate) fn problems(workload: &Object, snapshot: &Snapshot) -> Vec<Finding> {
    let autoscaler =
        snapshot.within(Kind::HorizontalPodAutoscaler, workload.namespace()).find(|autoscaler| {
            let target = &autoscaler["spec"]["scaleTargetRef"];
            target["kind"] == workload.kind.name() && target["name"] == *workload.name()
        });
    let replicas = match autoscaler {
        Some(autoscaler) => check_autoscaler(autoscaler, workload.name()),
        None => too_few(workload),
    };
    replicas.into_iter().chain(budget(workload, snapshot)).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(1)
}

fn check_autoscaler(autoscaler: &Object, name: &str) -> Option<Finding> {
    let (least, most) = (&autoscaler["spec"]["minReplicas"], &autoscaler["spec"]["maxReplicas"]);
    let (least, most) = (number(least), number(most));
    let problem = match (least, most) {
        (1, 1) => format!("it pins {name} to one pod"),
        (0 | 1, _) => format!("its minReplicas of {least} lets {name} shrink to one pod"),
        (least, most) if least >= most => format!("minReplicas and maxReplicas of {name} are both {least}"),
        _ => return None,
    };
    let remedy = "set minReplicas to 2 or more, and maxReplicas above it";
    let severity = if least < 2 { Severity::High } else { Severity::Medium };
    Some(Finding::new(autoscaler, PINNED_AUTOSCALER, severity, problem, remedy))
}

fn too_few(workload: &Object) -> Option<Finding> {
    let replicas = number(&workload["spec"]["replicas"]);
    (replicas < 2).then(|| {
        Finding::new(
            workload,
            TOO_FEW_REPLICAS,
            Severity::Medium,
            format!("it has {replicas} replicas and no autoscaler, and must survive an eviction"),
            "set two replicas or more, or remove it from `evictions`",
        )
    })
}

fn budget(workload: &Object, snapshot: &Snapshot) -> Option<Finding> {
    let labels = &workload["spec"]["template"]["metadata"]["labels"];
    let budget = snapshot
        .within(Kind::PodDisruptionBudget, workload.namespace())
        .find(|budget| selects(&budget["spec"]["selector"], labels));
    let Some(budget) = budget else {
        return Some(Finding::new(
            workload,
            NO_BUDGET,
            Severity::High,
            "no PodDisruptionBudget selects its pods: a drain may evict all of them at once",
            "add one with maxUnavailable: 1",
        ));
    };
    let spec = &budget["spec"];
    let share = |value: &Value, text: &str| value.as_str() == Some(text);
    let useless = share(&spec["maxUnavailable"], "100%")
        || spec["minAvailable"] == 0
        || share(&spec["minAvailable"], "0%")
        || spec["maxUnavailable"].as_u64().is_some_and(|most| most > 1);
    useless.then(|| {
        Finding::new(
            budget,
            NO_BUDGET,
            Severity::Medium,
            "it permits two evictions at once",
            "set maxUnavailable: 1",
        )
    })
}
