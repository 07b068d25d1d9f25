//! A finding: one object of the cluster, the rule that it breaks, the problem and the remedy. Plain data; knows no rule
//! and no format.

use std::fmt::{Display, Formatter};

use super::snapshot::{Kind, Object};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Medium,
    High,
    Critical,
}

impl Severity {
    /// The name in OpenReports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// An object of the cluster, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectRef {
    pub(crate) kind: Kind,
    /// The namespace; empty for an object without one.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ObjectRef {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl Display for ObjectRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name } = self;
        match namespace.as_str() {
            "" => write!(f, "{} {name}", kind.name()),
            namespace => write!(f, "{} {namespace}/{name}", kind.name()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) object: ObjectRef,
    pub(crate) rule: &'static str,
    pub(crate) problem: String,
    pub(crate) remedy: String,
    pub(crate) severity: Severity,
}

impl Finding {
    pub(crate) fn new(
        object: &Object,
        rule: &'static str,
        severity: Severity,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::of(object.reference(), rule, severity, problem, remedy)
    }

    /// A finding about an object, which need not exist.
    pub(crate) fn of(
        object: ObjectRef,
        rule: &'static str,
        severity: Severity,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { object, rule, problem: problem.into(), remedy: remedy.into(), severity }
    }
}
