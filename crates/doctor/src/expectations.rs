//! The expectations of one environment, from its TOML file: its workloads, and what is allowed. Everything else must be
//! refused. Plain data and its validation; knows no cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// The source of a path that stands for every pod without restrictions. The paths of workloads are listed one by one,
/// and so are those of neighbours where a namespace denies by default.
pub(crate) const ANY_SOURCE: &str = "everybody";
/// The vantage point in a namespace of the doctor's own, outside the environment.
pub(crate) const OUTSIDER: &str = "stranger";
/// Prefix of vantage points without labels. No workload's name contains a dot.
pub(crate) const NEIGHBOUR_PREFIX: &str = "neighbour.";
/// Prefix of vantage points with a caller's labels in the outsider's namespace.
pub(crate) const IMPOSTOR_PREFIX: &str = "double.";
/// The target of a path that stands for the API server's Service.
pub(crate) const APISERVER: &str = "apiserver";
/// Permissions that a team must not have in its own namespace, unless it `may`.
pub(crate) const FORBIDDEN_IN_OWN_NAMESPACE: [&str; 7] = [
    "get secrets",
    "create pods/exec",
    "patch pods/ephemeralcontainers",
    "patch networkpolicies",
    "patch roles",
    "patch rolebindings",
    "patch resourcequotas",
];
/// Permissions that a team must not have in any other namespace.
pub(crate) const FORBIDDEN_IN_OTHER_NAMESPACES: [&str; 6] = [
    "patch deployments",
    "get pods",
    "delete pods",
    "create pods/exec",
    "get secrets",
    "patch networkpolicies",
];

/// What an environment allows; see `docs/how-to/doctor.md` for the file format.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// The environment's name, for reports.
    pub(crate) environment: String,
    /// The workloads of the environment; the paths between all of them are checked.
    #[serde(rename = "workload")]
    pub(crate) workloads: Vec<Workload>,
    /// Further callers: pods with these labels in this namespace.
    #[serde(default, rename = "source")]
    pub(crate) sources: Vec<Source>,
    /// Open paths.
    #[serde(default, rename = "path")]
    pub(crate) paths: Vec<Path>,
    /// Further addresses that no workload may reach, as `host:port`.
    #[serde(default, rename = "elsewhere")]
    pub(crate) denied_addresses: Vec<String>,
    /// Calls to a provider, as a workload's own settings make them.
    #[serde(default, rename = "call")]
    pub(crate) calls: Vec<CallRule>,
    #[serde(default, rename = "team")]
    pub(crate) teams: Vec<Team>,
    /// Images that a namespace must not run.
    #[serde(default, rename = "image")]
    pub(crate) images: Vec<ImageCheck>,
    /// Further admission policies that must deny in each namespace of the environment, named as in `image.by`.
    #[serde(default)]
    pub(crate) admission: Vec<String>,
    /// Namespaces that must refuse pods against Pod Security's `restricted`. Default: the environment's namespaces.
    #[serde(default)]
    pub(crate) restricted: Option<Vec<String>>,
    /// Whether pods without a policy of their own must have no egress from these namespaces.
    #[serde(default)]
    pub(crate) default_deny: bool,
    /// Workloads whose disruption budget is tested by evicting two pods at once.
    #[serde(default)]
    pub(crate) evictions: Vec<String>,
    /// Namespaces whose ServiceAccounts and pods on the node's network belong to the platform.
    #[serde(default = "kube_system")]
    pub(crate) platform: Vec<String>,
    /// Registries, organisations or repositories of images. Default: images are not compared.
    #[serde(default)]
    pub(crate) registries: Vec<String>,
    /// Further subjects of bindings with rights of weight in the namespaces.
    #[serde(default, rename = "subject")]
    pub(crate) subjects: Vec<Subject>,
    /// Settings of workloads that must have a value, also one that weakens the service.
    #[serde(default, rename = "setting")]
    pub(crate) settings: Vec<Setting>,
    /// Address blocks that a NetworkPolicy may open.
    #[serde(default, rename = "address")]
    pub(crate) addresses: Vec<Address>,
    /// What Ingresses and HTTPRoutes may lead to a workload.
    #[serde(default, rename = "route")]
    pub(crate) routes: Vec<Route>,
    /// Findings about objects that are known and accepted.
    #[serde(default, rename = "accept")]
    pub(crate) accepted: Vec<Acceptance>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) namespace: String,
    #[serde(default)]
    pub(crate) kind: Kind,
    /// Whether the workload may use DNS.
    #[serde(default = "yes", rename = "names")]
    pub(crate) dns: bool,
    /// The NetworkPolicy for the workload's ingress and egress; reported by name when it does not exist.
    #[serde(default)]
    pub(crate) policy: Option<String>,
    /// Whether the workload may connect anywhere.
    #[serde(default)]
    pub(crate) open_egress: bool,
    /// Names (SANs) of further callers that the workload may accept, besides those of `call`.
    #[serde(default)]
    pub(crate) clients: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    #[default]
    Deployment,
    StatefulSet,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Path {
    /// A workload, a source, or [`ANY_SOURCE`].
    pub(crate) from: String,
    /// A workload, or [`APISERVER`].
    pub(crate) to: String,
    /// A port of the target's pods.
    pub(crate) port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallRule {
    /// A workload with the settings of billing.
    pub(crate) from: String,
    /// The called workload.
    pub(crate) to: String,
    /// A route that only reads.
    pub(crate) path: String,
    /// Whether a client certificate is required.
    #[serde(default)]
    pub(crate) certificate: bool,
    /// The SAN (URI or DNS) of the caller's certificate, which the certificate of another CA copies.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Whether a token is required.
    #[serde(default)]
    pub(crate) token: bool,
    /// The cert-manager issuer of the callers' CA, usable in the caller's namespace: it signs a certificate with a SAN
    /// that is not on the allow-list.
    #[serde(default)]
    pub(crate) issuer: Option<Issuer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    pub(crate) name: String,
    #[serde(default = "cluster_issuer")]
    pub(crate) kind: String,
}

fn yes() -> bool {
    true
}

fn cluster_issuer() -> String {
    "ClusterIssuer".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Team {
    /// The group that RoleBindings name.
    pub(crate) group: String,
    pub(crate) namespace: String,
    /// Permissions in the team's namespace, such as `patch deployments` or `get pods`.
    pub(crate) may: Vec<String>,
    /// Further permissions that the team must not have in its namespace.
    #[serde(default)]
    pub(crate) may_not: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageCheck {
    pub(crate) namespace: String,
    /// An image that the namespace must refuse.
    pub(crate) forbidden: String,
    /// The positive control: an image that the namespace must accept.
    pub(crate) allowed: String,
    /// The admission policy, such as `validatingadmissionpolicy/images-of-the-team`.
    pub(crate) by: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum SubjectKind {
    User,
    Group,
    ServiceAccount,
}

impl SubjectKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::ServiceAccount => "ServiceAccount",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    pub(crate) kind: SubjectKind,
    pub(crate) name: String,
    /// Namespace of a ServiceAccount.
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    /// Namespaces of the environment where the subject may hold rights. Default: all, also by a ClusterRoleBinding.
    #[serde(default, rename = "in")]
    pub(crate) within: Vec<String>,
    /// The subject's rights, such as `read secrets`. Default: all.
    #[serde(default)]
    pub(crate) may: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setting {
    pub(crate) workload: String,
    /// The environment variable of the setting; its flag counts too.
    pub(crate) name: String,
    /// The expected value; empty if the setting must be unset.
    pub(crate) value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    In,
    Out,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Address {
    pub(crate) workload: String,
    pub(crate) direction: Direction,
    /// The block, in the spelling of the NetworkPolicy.
    pub(crate) cidr: String,
    /// The allowed ports. Default: every port.
    #[serde(default)]
    pub(crate) ports: Vec<u16>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// The workload that the route leads to.
    pub(crate) to: String,
    /// The allowed hosts. Default: every host.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    /// The allowed paths, in the spelling of the Ingress or HTTPRoute.
    pub(crate) paths: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acceptance {
    pub(crate) rule: String,
    /// The object of the finding, such as `RoleBinding payments/team`.
    pub(crate) object: String,
    pub(crate) why: String,
}

fn kube_system() -> Vec<String> {
    vec!["kube-system".to_owned()]
}

impl Expectations {
    /// Parses TOML; all errors are in one message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expectations: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let errors = expectations.validate();
        if errors.is_empty() { Ok(expectations) } else { Err(errors.join("; ")) }
    }

    fn validate(&self) -> Vec<String> {
        let workloads: BTreeSet<&str> =
            self.workloads.iter().map(|workload| workload.name.as_str()).collect();
        let sources = self.sources.iter().map(|source| source.name.as_str());
        let callers: BTreeSet<&str> =
            workloads.iter().copied().chain(sources).chain([ANY_SOURCE, OUTSIDER]).collect();
        let namespaces = self.namespaces();
        let is_neighbour = |name: &str| {
            name.strip_prefix(NEIGHBOUR_PREFIX).is_some_and(|namespace| namespaces.contains(namespace))
        };
        let mut errors = Vec::new();
        if workloads.len() < self.workloads.len() {
            errors.push("two workloads have the same name".to_owned());
        }
        for path in &self.paths {
            if !callers.contains(path.from.as_str()) && !is_neighbour(&path.from) {
                errors.push(format!("path from {:?}: neither a workload nor a source", path.from));
            }
            if path.to != APISERVER && !workloads.contains(path.to.as_str()) {
                errors.push(format!("path to {:?}: not a workload", path.to));
            }
        }
        let named = self.calls.iter().flat_map(|call| [&call.from, &call.to]).chain(&self.evictions);
        let unknown = named.filter(|name| !workloads.contains(name.as_str()));
        errors.extend(unknown.map(|name| format!("{name:?} is not a workload")));
        let permissions = self.teams.iter().flat_map(|team| team.may.iter().chain(&team.may_not));
        let unknown = permissions.filter(|text| crate::rbac::Permission::parse(text).is_none());
        errors.extend(unknown.map(|text| format!("{text:?} is not a known verb and resource")));
        let invalid = self.denied_addresses.iter().filter(|address| split(address).is_none());
        errors.extend(invalid.map(|address| format!("{address:?} is not host:port")));
        errors.extend(self.validate_objects(&workloads));
        errors
    }

    /// Validates the parts that only the comparison of objects uses.
    fn validate_objects(&self, workloads: &BTreeSet<&str>) -> Vec<String> {
        let settings = self.settings.iter().map(|setting| ("setting of", &setting.workload));
        let addresses = self.addresses.iter().map(|address| ("address of", &address.workload));
        let routes = self.routes.iter().map(|route| ("route to", &route.to));
        let named = settings.chain(addresses).chain(routes);
        let unknown = named.filter(|(_, name)| !workloads.contains(name.as_str()));
        let mut errors: Vec<String> =
            unknown.map(|(what, name)| format!("{what} {name:?}: not a workload")).collect();
        let rights = crate::objects::bindings::weight_names();
        for subject in &self.subjects {
            let account = subject.kind == SubjectKind::ServiceAccount;
            if account != subject.namespace.is_some() {
                let rule = if account { "needs a namespace" } else { "has no namespace" };
                errors.push(format!("subject {:?}: a {} {rule}", subject.name, subject.kind.as_str()));
            }
            let unknown = subject.may.iter().filter(|may| !rights.contains(may.as_str()));
            errors.extend(unknown.map(|may| {
                let known = Vec::from_iter(rights.iter().copied()).join(", ");
                format!("subject {:?}: {may:?} is none of {known}", subject.name)
            }));
        }
        let unknown = self.accepted.iter().filter(|accepted| !crate::objects::is_rule(&accepted.rule));
        errors.extend(unknown.map(|accepted| format!("accept {:?}: not a rule", accepted.rule)));
        let silent = self.accepted.iter().filter(|accepted| accepted.why.trim().is_empty());
        errors.extend(silent.map(|accepted| format!("accept {:?}: `why` is empty", accepted.object)));
        errors
    }

    /// The reason why a finding is accepted.
    pub(crate) fn acceptance(&self, rule: &str, object: &str) -> Option<&str> {
        let accepted = self.accepted.iter().find(|entry| entry.rule == rule && entry.object == object);
        accepted.map(|entry| entry.why.as_str())
    }

    /// The namespaces of the environment.
    pub(crate) fn namespaces(&self) -> BTreeSet<&str> {
        let of_teams = self.teams.iter().map(|team| team.namespace.as_str());
        self.workloads.iter().map(|workload| workload.namespace.as_str()).chain(of_teams).collect()
    }

    /// Whether this path must be open.
    pub(crate) fn is_open(&self, from: &str, to: &str, port: u16) -> bool {
        let same = |path: &&Path| path.to == to && path.port == port;
        let unrestricted = self.is_unrestricted(from);
        self.paths
            .iter()
            .filter(same)
            .any(|path| path.from == from || path.from == ANY_SOURCE && unrestricted)
    }

    /// Whether a workload may connect anywhere.
    pub(crate) fn has_open_egress(&self, name: &str) -> bool {
        self.workloads.iter().any(|workload| workload.name == name && workload.open_egress)
    }

    fn is_unrestricted(&self, from: &str) -> bool {
        let restricted = self.default_deny && from.starts_with(NEIGHBOUR_PREFIX);
        !restricted && self.workloads.iter().all(|workload| workload.name != from)
    }
}

/// Splits `host:port`, with or without brackets around an IPv6 address.
pub(crate) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        environment = "x"
        elsewhere = ["[fd00::1]:443"]
        [[workload]]
        name = "a"
        namespace = "one"
        [[workload]]
        name = "b"
        namespace = "two"
        [[path]]
        from = "a"
        to = "b"
        port = 9000
    "#;

    #[test]
    fn only_listed_paths_are_open() {
        let expectations = Expectations::parse(GOOD).unwrap();
        assert!(expectations.is_open("a", "b", 9000));
        for (from, to, port) in [("a", "b", 9001), ("b", "a", 9000), ("stranger", "b", 9000)] {
            assert!(!expectations.is_open(from, to, port));
        }
        assert_eq!(expectations.namespaces().into_iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(split("[fd00::1]:443"), Some(("fd00::1", 443)));
    }

    #[test]
    fn the_files_of_all_environments_are_valid() {
        let files = [
            include_str!("../../../deploy/envs/invoice-app/doctor.toml"),
            include_str!("../../../deploy/envs/ping-pong/doctor.toml"),
            include_str!("../../../deploy/envs/production/doctor.toml"),
            include_str!("../../../deploy/envs/staging/doctor.toml"),
            include_str!("../../../deploy/envs/tinjis/doctor.toml"),
        ];
        let workloads = files.map(|text| Expectations::parse(text).map(|parsed| parsed.workloads.len()));
        assert_eq!(workloads, [Ok(3), Ok(2), Ok(2), Ok(2), Ok(2)]);
    }

    #[test]
    fn everybody_means_pods_without_restrictions() {
        let open = format!("{GOOD}\n[[path]]\nfrom = \"everybody\"\nto = \"a\"\nport = 8000");
        let mut expectations = Expectations::parse(&open).unwrap();
        for (from, wanted) in [("stranger", true), ("neighbour.one", true), ("b", false)] {
            assert_eq!(expectations.is_open(from, "a", 8000), wanted, "{from}");
        }
        expectations.default_deny = true;
        assert!(!expectations.is_open("neighbour.one", "a", 8000));
    }

    #[test]
    fn all_errors_are_in_one_message() {
        let bad = format!(
            "{GOOD}\n[[path]]\nfrom = \"c\"\nto = \"d\"\nport = 1\n[[team]]\ngroup = \"g\"\nnamespace = \"one\"\n\
             may = [\"fly planes\"]"
        );
        let message = Expectations::parse(&bad).unwrap_err();
        for part in ["\"c\"", "\"d\"", "fly planes"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(Expectations::parse("environment = \"x\"\nworkload = []\nnonsense = 1").is_err());
    }
}
