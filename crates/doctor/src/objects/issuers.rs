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

/// Findings about ClusterIssuers, which serve Certificates of every namespace: a subject that may create a Certificate
/// gets any name that the issuer signs.
pub(crate) fn open_issuers(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for (namespace, name, call) in named_calls(expectations) {
        findings.extend(other_issuers(namespace, name, call, snapshot));
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

/// The caller's own Certificates from an issuer that the file does not name: then the trusted CA signs for others too.
fn other_issuers(namespace: &str, name: &str, call: &CallRule, snapshot: &Snapshot) -> Vec<Finding> {
    let Some(expected) = &call.issuer else { return Vec::new() };
    let expected = format!("{} {}", expected.kind, expected.name);
    let own = snapshot.of(Kind::Certificate).iter();
    let own = own.filter(|certificate| certificate.namespace() == namespace && carries(certificate, name));
    let finding = |certificate: &Object| {
        let issuer = &certificate["spec"]["issuerRef"];
        let kind = issuer["kind"].as_str().unwrap_or("Issuer");
        let issuer = format!("{kind} {}", issuer["name"].as_str().unwrap_or_default());
        (issuer != expected).then(|| {
            Finding::new(
                certificate,
                OPEN_ISSUER,
                Severity::Critical,
                format!("{issuer} issues {name}, and the expectations name {expected}"),
                format!("set its issuerRef to {expected}, and trust that CA only"),
            )
        })
    };
    own.filter_map(finding).collect()
}

/// Whether a Certificate requests a name.
fn carries(certificate: &Object, name: &str) -> bool {
    let has = |field: &str| texts(&certificate["spec"][field]).any(|san| san == name);
    has("uris") || has("dnsNames") || certificate["spec"]["commonName"] == *name
}

/// Whether the expectations list this subject for certificates or for everything.
fn is_named(expectations: &Expectations, binding: &Object, holder: &super::bindings::Holder) -> bool {
    let rights = super::bindings::permitted(expectations, holder, binding.namespace());
    rights.contains(ISSUES) || rights.contains(EVERYTHING)
}

/// Certificates that already carry a caller's name in a namespace that is not the caller's.
pub(crate) fn copied_names(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (namespace, name, _) in named_calls(expectations) {
        for certificate in snapshot.of(Kind::Certificate) {
            if certificate.namespace() != namespace && carries(certificate, name) {
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
