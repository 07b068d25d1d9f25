//! What a team may do, as the request that tries it, and which Role and binding grant it. Pure: reads the objects
//! that it is given. Knows no connection.

use http::Method;
use serde_json::{Value, json};

use super::kube::As;

/// Name of an object that is not there: whoever may touch it learns that, whoever may not is refused before.
const NOBODY: &str = "tinjis-doctor-no-such-object";

/// A verb on a kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    pub(super) verb: Verb,
    pub(super) resource: &'static Resource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Create,
    Patch,
    Delete,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) plural: &'static str,
    pub(super) group: &'static str,
    version: &'static str,
    kind: &'static str,
}

const fn resource(
    plural: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
) -> Resource {
    Resource { plural, group, version, kind }
}

static RESOURCES: [Resource; 18] = [
    resource("configmaps", "", "v1", "ConfigMap"),
    resource("events", "", "v1", "Event"),
    resource("limitranges", "", "v1", "LimitRange"),
    resource("pods", "", "v1", "Pod"),
    resource("pods/ephemeralcontainers", "", "v1", "Pod"),
    resource("pods/exec", "", "v1", "PodExecOptions"),
    resource("resourcequotas", "", "v1", "ResourceQuota"),
    resource("secrets", "", "v1", "Secret"),
    resource("serviceaccounts", "", "v1", "ServiceAccount"),
    resource("services", "", "v1", "Service"),
    resource("deployments", "apps", "v1", "Deployment"),
    resource("statefulsets", "apps", "v1", "StatefulSet"),
    resource("jobs", "batch", "v1", "Job"),
    resource("horizontalpodautoscalers", "autoscaling", "v2", "HorizontalPodAutoscaler"),
    resource("networkpolicies", "networking.k8s.io", "v1", "NetworkPolicy"),
    resource("poddisruptionbudgets", "policy", "v1", "PodDisruptionBudget"),
    resource("roles", "rbac.authorization.k8s.io", "v1", "Role"),
    resource("rolebindings", "rbac.authorization.k8s.io", "v1", "RoleBinding"),
];

impl Deed {
    /// From words such as `patch deployments`.
    pub(super) fn parse(words: &str) -> Option<Self> {
        let (verb, plural) = words.split_once(' ')?;
        let verb = match verb {
            "get" => Verb::Get,
            "list" => Verb::List,
            "create" => Verb::Create,
            "patch" => Verb::Patch,
            "delete" => Verb::Delete,
            _ => return None,
        };
        let resource = RESOURCES.iter().find(|resource| resource.plural == plural)?;
        Some(Self { verb, resource })
    }

    /// The request, on this object or on one that is not there, and of parts always on that; it changes nothing.
    pub(super) fn request(&self, namespace: &str, name: Option<&str>) -> (Method, String, Option<Value>) {
        let all = self.resource.path(namespace);
        let one = match self.resource.part() {
            None => format!("{all}/{}", name.unwrap_or(NOBODY)),
            Some(part) => format!("{all}/{NOBODY}/{part}"),
        };
        match self.verb {
            Verb::Create if self.resource.part().is_some() => (Method::POST, one, None),
            Verb::Get => (Method::GET, one, None),
            Verb::List => (Method::GET, format!("{all}?limit=1"), None),
            Verb::Create => {
                let version = match self.resource.group {
                    "" => self.resource.version.to_owned(),
                    group => format!("{group}/{}", self.resource.version),
                };
                let body = json!({
                    "apiVersion": version,
                    "kind": self.resource.kind,
                    "metadata": {"name": NOBODY, "namespace": namespace},
                });
                (Method::POST, format!("{all}?dryRun=All"), Some(body))
            }
            Verb::Patch => {
                let body = json!({"metadata": {"annotations": {"tinjis.io/doctor": "was here"}}});
                (Method::PATCH, format!("{one}?dryRun=All"), Some(body))
            }
            Verb::Delete => (Method::DELETE, format!("{one}?dryRun=All"), None),
        }
    }

    fn verb_name(&self) -> &'static str {
        match self.verb {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Create => "create",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
        }
    }
}

impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb_name(), self.resource.plural)
    }
}

impl Resource {
    /// All such objects of a namespace, or those that it is a part of.
    pub(super) fn path(&self, namespace: &str) -> String {
        let plural = self.plural.split_once('/').map_or(self.plural, |(whole, _)| whole);
        match self.group {
            "" => format!("/api/{}/namespaces/{namespace}/{plural}", self.version),
            group => format!("/apis/{group}/{}/namespaces/{namespace}/{plural}", self.version),
        }
    }

    /// The part of an object that it is, such as `exec` of pods.
    fn part(&self) -> Option<&'static str> {
        self.plural.split_once('/').map(|(_, part)| part)
    }
}

/// What grants the deed to them: `Role payments/team by RoleBinding payments/team`; one for each that does.
pub(super) fn grants(
    deed: &Deed,
    name: Option<&str>,
    who: &As,
    bindings: &[Value],
    roles: &[Value],
) -> Vec<String> {
    let theirs = bindings.iter().filter(|binding| {
        let subjects = binding["subjects"].as_array();
        subjects.is_some_and(|subjects| subjects.iter().any(|subject| is(subject, who)))
    });
    let granted = theirs.filter_map(|binding| {
        let (kind, role) = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
        let namespace = &binding["metadata"]["namespace"];
        let role = roles.iter().find(|candidate| {
            candidate["kind"] == *kind
                && candidate["metadata"]["name"] == *role
                && (kind == "ClusterRole" || candidate["metadata"]["namespace"] == *namespace)
        })?;
        let rules = role["rules"].as_array()?;
        rules
            .iter()
            .any(|rule| allows(rule, deed, name))
            .then(|| format!("{} by {}", full(role), full(binding)))
    });
    granted.collect()
}

fn is(subject: &Value, who: &As) -> bool {
    match who {
        As::Account(namespace, name) if subject["kind"] == "ServiceAccount" => {
            subject["namespace"] == **namespace && subject["name"] == **name
        }
        _ => subject["kind"] == "Group" && who.groups().iter().any(|group| subject["name"] == **group),
    }
}

fn allows(rule: &Value, deed: &Deed, name: Option<&str>) -> bool {
    let has = |list: &Value, wanted: &str| {
        list.as_array().is_some_and(|list| list.iter().any(|item| item == "*" || item == wanted))
    };
    let names = rule["resourceNames"]
        .as_array()
        .is_none_or(|names| names.is_empty() || names.iter().any(|candidate| candidate.as_str() == name));
    has(&rule["apiGroups"], deed.resource.group)
        && has(&rule["resources"], deed.resource.plural)
        && has(&rule["verbs"], deed.verb_name())
        && names
}

fn full(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(verbs: &[&str], resources: &[&str]) -> Value {
        json!({"kind": "Role", "metadata": {"name": "team", "namespace": "two"},
            "rules": [{"apiGroups": ["apps", ""], "resources": resources, "verbs": verbs}]})
    }

    fn binding(group: &str) -> Value {
        json!({"kind": "RoleBinding", "metadata": {"name": "bound", "namespace": "two"},
            "subjects": [{"kind": "Group", "name": group}], "roleRef": {"kind": "Role", "name": "team"}})
    }

    #[test]
    fn the_role_and_the_binding_that_grant_a_deed_are_named() {
        let deed = Deed::parse("patch deployments").unwrap();
        let who = As::Team("g".to_owned());
        let named = |role, binding| grants(&deed, Some("x"), &who, &[binding], &[role]);
        let granted = named(role(&["*"], &["deployments"]), binding("g"));
        assert_eq!(granted, ["Role two/team by RoleBinding two/bound"]);
        assert_eq!(named(role(&["patch"], &["deployments"]), binding("system:authenticated")).len(), 1);
        assert!(named(role(&["get"], &["deployments"]), binding("g")).is_empty(), "another verb");
        assert!(named(role(&["patch"], &["pods"]), binding("g")).is_empty(), "another resource");
        assert!(named(role(&["*"], &["*"]), binding("h")).is_empty(), "another group");
    }

    #[test]
    fn a_patch_changes_nothing_and_a_get_names_its_object() {
        let (method, path, body) = Deed::parse("patch networkpolicies").unwrap().request("one", Some("p"));
        assert_eq!(method, Method::PATCH);
        assert_eq!(path, "/apis/networking.k8s.io/v1/namespaces/one/networkpolicies/p?dryRun=All");
        assert!(body.is_some());
        let (_, path, _) = Deed::parse("get secrets").unwrap().request("one", None);
        assert_eq!(path, "/api/v1/namespaces/one/secrets/tinjis-doctor-no-such-object");
        let (method, path, body) = Deed::parse("create pods/exec").unwrap().request("one", Some("p"));
        assert_eq!(
            (method, path.as_str(), body),
            (Method::POST, "/api/v1/namespaces/one/pods/tinjis-doctor-no-such-object/exec", None)
        );
    }
}
