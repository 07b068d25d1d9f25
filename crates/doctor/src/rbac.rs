//! Permissions (a verb and a resource): the request that tests one, and the Roles and bindings that grant it. Pure;
//! knows no connection.

use http::Method;
use serde_json::{Value, json};

use crate::kube::Identity;

/// The name of an object that does not exist: an authorized request gets 404, any other is refused before.
const ABSENT_OBJECT: &str = "tinjis-doctor-no-such-object";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Permission {
    pub(crate) verb: Verb,
    pub(crate) resource: &'static Resource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Create,
    Patch,
    Delete,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) plural: &'static str,
    pub(crate) group: &'static str,
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

impl Permission {
    /// Parses text such as `patch deployments`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (verb, plural) = text.split_once(' ')?;
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

    /// A request that needs the permission and changes nothing. It names this object, or an absent object. A request
    /// for a subresource always names an absent object.
    pub(crate) fn request(&self, namespace: &str, name: Option<&str>) -> (Method, String, Option<Value>) {
        let all = self.resource.path(namespace);
        let one = match self.resource.subresource() {
            None => format!("{all}/{}", name.unwrap_or(ABSENT_OBJECT)),
            Some(subresource) => format!("{all}/{ABSENT_OBJECT}/{subresource}"),
        };
        match self.verb {
            Verb::Create if self.resource.subresource().is_some() => (Method::POST, one, None),
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
                    "metadata": {"name": ABSENT_OBJECT, "namespace": namespace},
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

    fn verb(&self) -> &'static str {
        match self.verb {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Create => "create",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
        }
    }
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb(), self.resource.plural)
    }
}

impl Resource {
    /// The collection's path in a namespace; for a subresource, that of its parent.
    pub(crate) fn path(&self, namespace: &str) -> String {
        let plural = self.plural.split_once('/').map_or(self.plural, |(parent, _)| parent);
        match self.group {
            "" => format!("/api/{}/namespaces/{namespace}/{plural}", self.version),
            group => format!("/apis/{group}/{}/namespaces/{namespace}/{plural}", self.version),
        }
    }

    /// The subresource, for example `exec` of `pods/exec`.
    fn subresource(&self) -> Option<&'static str> {
        self.plural.split_once('/').map(|(_, subresource)| subresource)
    }
}

/// Each grant of the permission to the identity, as `Role payments/team by RoleBinding payments/team`.
pub(crate) fn grants(
    permission: &Permission,
    name: Option<&str>,
    identity: &Identity,
    bindings: &[Value],
    roles: &[Value],
) -> Vec<String> {
    let matching = bindings.iter().filter(|binding| {
        let subjects = binding["subjects"].as_array();
        subjects.is_some_and(|subjects| subjects.iter().any(|subject| matches(subject, identity)))
    });
    let granted = matching.filter_map(|binding| {
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
            .any(|rule| allows(rule, permission, name))
            .then(|| format!("{} by {}", qualified_name(role), qualified_name(binding)))
    });
    granted.collect()
}

fn matches(subject: &Value, identity: &Identity) -> bool {
    match identity {
        Identity::ServiceAccount(namespace, name) if subject["kind"] == "ServiceAccount" => {
            subject["namespace"] == **namespace && subject["name"] == **name
        }
        _ => subject["kind"] == "Group" && identity.groups().iter().any(|group| subject["name"] == **group),
    }
}

fn allows(rule: &Value, permission: &Permission, name: Option<&str>) -> bool {
    let has = |list: &Value, wanted: &str| {
        list.as_array().is_some_and(|list| list.iter().any(|item| item == "*" || item == wanted))
    };
    let names = rule["resourceNames"]
        .as_array()
        .is_none_or(|names| names.is_empty() || names.iter().any(|candidate| candidate.as_str() == name));
    has(&rule["apiGroups"], permission.resource.group)
        && has(&rule["resources"], permission.resource.plural)
        && has(&rule["verbs"], permission.verb())
        && names
}

fn qualified_name(object: &Value) -> String {
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
    fn the_role_and_binding_that_grant_a_permission_are_named() {
        let permission = Permission::parse("patch deployments").unwrap();
        let identity = Identity::Group("g".to_owned());
        let named = |role, binding| grants(&permission, Some("x"), &identity, &[binding], &[role]);
        let granted = named(role(&["*"], &["deployments"]), binding("g"));
        assert_eq!(granted, ["Role two/team by RoleBinding two/bound"]);
        assert_eq!(named(role(&["patch"], &["deployments"]), binding("system:authenticated")).len(), 1);
        assert!(named(role(&["get"], &["deployments"]), binding("g")).is_empty(), "another verb");
        assert!(named(role(&["patch"], &["pods"]), binding("g")).is_empty(), "another resource");
        assert!(named(role(&["*"], &["*"]), binding("h")).is_empty(), "another group");
    }

    #[test]
    fn a_patch_is_a_dry_run_and_a_get_names_its_object() {
        let (method, path, body) =
            Permission::parse("patch networkpolicies").unwrap().request("one", Some("p"));
        assert_eq!(method, Method::PATCH);
        assert_eq!(path, "/apis/networking.k8s.io/v1/namespaces/one/networkpolicies/p?dryRun=All");
        assert!(body.is_some());
        let (_, path, _) = Permission::parse("get secrets").unwrap().request("one", None);
        assert_eq!(path, "/api/v1/namespaces/one/secrets/tinjis-doctor-no-such-object");
        let (method, path, body) = Permission::parse("create pods/exec").unwrap().request("one", Some("p"));
        assert_eq!(
            (method, path.as_str(), body),
            (Method::POST, "/api/v1/namespaces/one/pods/tinjis-doctor-no-such-object/exec", None)
        );
    }
}
