//! The protocol between the doctor and its probe pods: tasks in, observations out. Plain data; knows neither Kubernetes
//! nor a connection.

use serde::{Deserialize, Serialize};

/// One connection, look-up or request that a probe makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProbeTask {
    /// The id of the task's check.
    pub(crate) id: String,
    /// The expected outcome. A probe retries for a while until it gets this outcome: policies for a new pod, and
    /// endpoints, may take effect late.
    pub(crate) expect_allowed: bool,
    pub(crate) action: ProbeAction,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProbeAction {
    /// Open a TCP connection.
    Connect { host: String, port: u16 },
    /// Look up a name in DNS.
    Resolve { name: String },
    /// Send a request to the provider that the pod's own settings name.
    Call(ProviderCall),
}

/// A valid request with at most one fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProviderCall {
    /// Path and query of a route that only reads.
    pub(crate) path: String,
    pub(crate) fault: CallFault,
    /// The SAN of the valid certificate, for [`CallFault::OtherCa`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Another address of the same server, for [`CallFault::WrongServerName`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
}

/// What is wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CallFault {
    /// No fault: this call should be served.
    None,
    NoCertificate,
    /// A certificate of a CA of the probe's own.
    OtherCa,
    /// A certificate of the right CA for a name that is not on the SAN allow-list.
    OtherSan,
    WrongToken,
    NoToken,
    PlainHttp,
    /// The caller trusts a CA other than the server's, so the caller must refuse.
    UntrustedServerCa,
    /// The caller uses an address that the server's certificate lacks, so the caller must refuse.
    WrongServerName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Allowed,
    Refused,
    /// The outcome says nothing about permission.
    Unknown,
}

/// The observed outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Observation {
    pub(crate) id: String,
    pub(crate) outcome: Outcome,
    /// The response or error as text.
    pub(crate) evidence: String,
}

impl Observation {
    pub(crate) fn new(id: &str, outcome: Outcome, evidence: impl std::fmt::Display) -> Self {
        Self { id: id.to_owned(), outcome, evidence: evidence.to_string() }
    }
}
