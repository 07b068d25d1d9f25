//! Compares a router with the OpenAPI document that is served for it, and reports what is missing on either side.
//! Parses the router's `Debug` text, the only place where axum lists methods and paths; links no router.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Methods that an OpenAPI document may list and an axum router may answer.
const METHODS: [&str; 5] = ["delete", "get", "patch", "post", "put"];

/// Operations that only one side has. Paths of the router that begin with `undocumented` are ignored.
///
/// # Panics
/// When a side cannot be read.
#[must_use]
#[track_caller]
pub fn differences(router: &str, document: &str, undocumented: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(document).expect("the document is JSON");
    let (routed, documented) = (routed(router), documented(&document));
    let routed: BTreeSet<_> =
        routed.into_iter().filter(|(_, path)| !path.starts_with(undocumented)).collect();
    let missing =
        routed.difference(&documented).map(|(method, path)| format!("not documented: {method} {path}"));
    let invented =
        documented.difference(&routed).map(|(method, path)| format!("no such route: {method} {path}"));
    missing.chain(invented).collect()
}

/// Methods and paths of a document.
fn documented(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().expect("the document has paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten().map(|(name, _)| name.clone());
        methods.filter(|name| METHODS.contains(&name.as_str())).map(move |method| (method, path.clone()))
    });
    operations.collect()
}

/// Methods and paths of a router. A final slash is removed, because documents list paths without it.
fn routed(router: &str) -> BTreeSet<(String, String)> {
    let (routes, rest) = router.split_once("node: Node { paths: {").expect("a router prints its paths");
    let paths: BTreeMap<&str, &str> = rest
        .split_once("} }")
        .expect("the paths end")
        .0
        .split(", RouteId(")
        .filter_map(|entry| entry.trim_start_matches("RouteId(").split_once("): "))
        .map(|(id, path)| (id, path.trim_matches('"')))
        .collect();
    let mut found = BTreeSet::new();
    for route in routes.split("RouteId(").skip(1) {
        let (id, handlers) = route.split_once("): ").expect("a route has an endpoint");
        let path = match paths.get(id).expect("a route has a path").trim_end_matches('/') {
            "" => "/",
            bare => bare,
        };
        for method in METHODS {
            let endpoint = handlers.split_once(&format!(" {method}: ")).map(|(_, endpoint)| endpoint);
            if endpoint.is_some_and(|endpoint| !endpoint.starts_with("None")) {
                found.insert((method.to_owned(), path.to_owned()));
            }
        }
    }
    assert!(!found.is_empty(), "a router has routes");
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: &str = "Router { routes: {RouteId(0): MethodRouter { get: BoxedHandler, put: None }, \
         RouteId(1): MethodRouter { get: None, put: BoxedHandler }, RouteId(2): MethodRouter { get: BoxedHandler, \
         put: None }}, node: Node { paths: {RouteId(0): \"/a\", RouteId(1): \"/b/\", RouteId(2): \"/pages\"} } }";

    #[test]
    fn what_only_one_of_both_has_is_named() {
        let document = |paths: &str| format!("{{\"paths\":{{{paths}}}}}");
        let same = document(r#""/a":{"get":{}},"/b":{"put":{},"summary":"x"}"#);
        assert_eq!(differences(ROUTER, &same, "/pages"), Vec::<String>::new());
        let other = document(r#""/a":{"get":{},"put":{}},"/c":{"get":{}}"#);
        assert_eq!(
            differences(ROUTER, &other, "/pages"),
            ["not documented: put /b", "no such route: get /c", "no such route: put /a"]
        );
    }
}
