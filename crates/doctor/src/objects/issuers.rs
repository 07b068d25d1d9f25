//! Issuers of callers' certificates: the name of a caller must not be obtained by a subject that is not the caller's team
//! or the platform. Pure; requests no certificate.

use super::bindings::{is_platform, rules_of, subjects, weights};
use super::finding::{Finding, Severity};
use super::snapshot::{Kind, Object, Snapshot, texts};
use crate::expectations::{CallRule, Expectations};

pub(crate) const OPEN_ISSUER: &str = "open-issuer";
pub(crate) const COPIED_NAME: &str = "copied-name";

const ISSUES: &str = "issue certificates";
const EVERYTHING: &str = "everything";

/// Calls by a named certificate: the caller's namespace, its name and its issuer.
fn named_calls(expectations: &Expectations) -> impl Iterator<Item = (&str, &str, &CallRule)> {
    expectations.calls.iter().filter_map(|call| {
        let from = expectations.workloads.iter().find(|workload| workload.name == call.from)?;
        Some((from.namespace.as_str(), call.name.as_deref()?, call))
    })
}

/// A ClusterIssuer serves Certificates of every namespace: each subject that may create one gets any name that it signs.
pub(crate) fn open_issuers(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for (namespace, name, call) in named_calls(expectations) {
        let issuer = call.issuer.as_ref().filter(|issuer| issuer.kind == "ClusterIssuer");
        let issuer = issuer.and_then(|issuer| snapshot.find(Kind::ClusterIssuer, "", &issuer.name));
        let Some(issuer) = issuer else { continue };
        let bindings = snapshot.of(Kind::RoleBinding).iter().chain(snapshot.of(Kind::ClusterRoleBinding));
        for binding in bindings.filter(|binding| binding.namespace() != namespace) {
            let rights = rules_of(binding, snapshot).map(weights).unwrap_or_default();
            if !rights.contains(ISSUES) && !rights.contains(EVERYTHING) {
                continue;
            }
            for subject in subjects(binding) {
                if is_platform(expectations, &subject) || is_named(expectations, binding, &subject) {
                    continue;
                }
                let finding = Finding::new(
                    issuer,
                    OPEN_ISSUER,
                    Severity::Critical,
                    format!(
                        "it issues {name} to {subject}, which may create Certificates by {}",
                        binding.reference()
                    ),
                    format!(
                        "use an Issuer of namespace {namespace} with a CA of its own, or remove the right from {subject}"
                    ),
                );
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
    }
    findings
}

/// Listed for certificates or for everything.
fn is_named(expectations: &Expectations, binding: &Object, holder: &super::bindings::Holder) -> bool {
    let rights = super::bindings::permitted(expectations, holder, binding.namespace());
    rights.contains(ISSUES) || rights.contains(EVERYTHING)
}

/// Certificates that already carry a caller's name in a namespace that is not the caller's.
pub(crate) fn copied_names(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (namespace, name, _) in named_calls(expectations) {
        for certificate in snapshot.of(Kind::Certificate) {
            let names = |field: &str| -> bool { texts(&certificate["spec"][field]).any(|san| san == name) };
            let common = certificate["spec"]["commonName"] == *name;
            if certificate.namespace() != namespace && (names("uris") || names("dnsNames") || common) {
                findings.push(Finding::new(
                    certificate,
                    COPIED_NAME,
                    Severity::Critical,
                    format!("it carries {name}, the name of a caller in namespace {namespace}"),
                    "delete it with its Secret, and find out who could create it",
                ));
            }
        }
    }
    findings
}
