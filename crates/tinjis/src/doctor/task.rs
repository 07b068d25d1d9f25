//! What a probe pod is told to try, and what it says: the words between the doctor and its pods.
//! Plain data; knows neither Kubernetes nor a connection.

use serde::{Deserialize, Serialize};

/// One thing that a probe tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    /// Of the trial that it is for.
    pub(super) id: String,
    /// Whether it should get through. A probe tries again for a while until it is as hoped: rules for a new pod may
    /// come late, and so may an endpoint.
    pub(super) hope: bool,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// A TCP connection.
    Connect { host: String, port: u16 },
    /// A name is asked for.
    Resolve { name: String },
    /// A request to the provider that the pod's own settings name.
    Call(Call),
}

/// A request that differs from a right one in at most one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Call {
    /// Path and query; asks, and changes nothing.
    pub(super) path: String,
    pub(super) fault: Fault,
    /// The name in the right certificate, for [`Fault::OtherAuthority`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// Another address of the same server, for [`Fault::ServerName`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
}

/// What is wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    /// Nothing: this one should be served.
    None,
    NoCertificate,
    /// A certificate by an authority of the probe's own.
    OtherAuthority,
    /// A certificate by the right authority, for a name that is not let in.
    OtherName,
    WrongToken,
    NoToken,
    /// No TLS at all.
    Plain,
    /// The caller trusts another authority than the server's: the caller must refuse.
    ServerAuthority,
    /// The caller uses an address that is not in the server's certificate: the caller must refuse.
    ServerName,
}

/// Whether something got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Result {
    Passed,
    Refused,
    /// Neither: what happened says nothing about permission.
    Unknown,
}

/// What was seen of one trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) result: Result,
    /// In words, as it was seen.
    pub(super) evidence: String,
}

impl Seen {
    pub(super) fn new(id: &str, result: Result, evidence: impl std::fmt::Display) -> Self {
        Self { id: id.to_owned(), result, evidence: evidence.to_string() }
    }
}
