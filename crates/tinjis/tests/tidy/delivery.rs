//! The chart's README and the examples of delivery match what they describe. Reads text in the one layout of these
//! files; validators of the formats are elsewhere. Knows no cluster.

use std::collections::BTreeSet;

use crate::tree::{File, file, files, none, rust};

#[test]
fn the_charts_readme_lists_each_value_in_order() {
    let listed = file("deploy/chart/README.md").text;
    let listed: Vec<&str> =
        listed.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let values = values(&file("deploy/chart/values.yaml").text);
    assert!(values.len() > 80, "only {} values were found", values.len());
    assert_eq!(listed, values, "run `make chart-docs`");
}

#[test]
fn each_value_of_the_chart_is_described() {
    let text = file("deploy/chart/values.yaml").text;
    let lines: Vec<&str> = text.lines().collect();
    let findings: Vec<String> = values(&text)
        .into_iter()
        .filter(|path| {
            let key = format!("{}:", path.rsplit('.').next().unwrap_or(path));
            let described = lines
                .windows(2)
                .any(|pair| pair[0].trim_start().starts_with('#') && pair[1].trim_start().starts_with(&key));
            !described
        })
        .collect();
    none("a value without a comment above it", &findings);
}

#[test]
fn each_secret_that_production_names_has_an_example() {
    let rendered = file("deploy/envs/production/rendered.yaml").text;
    let examples = objects();
    let mut findings = Vec::new();
    let (mut named, mut made) = (BTreeSet::new(), BTreeSet::new());
    for document in rendered.split("\n---") {
        let (Some(namespace), Some(kind)) =
            (field(document, "  namespace: "), field_at_start(document, "kind: "))
        else {
            continue;
        };
        let secrets = document.match_indices("secretName: ").map(|(at, key)| &document[at + key.len()..]);
        let variables =
            document.match_indices("secretKeyRef: {name: ").map(|(at, key)| &document[at + key.len()..]);
        for name in secrets.chain(variables).map(word) {
            // A Certificate or the annotation of an Ingress creates this Secret.
            let makes = kind == "Certificate" || kind == "Ingress";
            (if makes { &mut made } else { &mut named }).insert((namespace.to_owned(), name.to_owned()));
        }
    }
    assert!(named.len() > 5, "only {} Secrets were found", named.len());
    for (namespace, name) in named.difference(&made) {
        let wanted = ("ExternalSecret".to_owned(), namespace.clone(), name.clone());
        if !examples.contains(&wanted) {
            findings.push(format!("{namespace}/{name}"));
        }
    }
    none("a Secret of production without an ExternalSecret in deploy/examples", &findings);
}

#[test]
fn each_object_that_an_example_names_exists() {
    // (text before the name, kind of the named object)
    const NAMES: [(&str, &str); 9] = [
        ("secretStoreRef: {kind: ClusterSecretStore, name: ", "ClusterSecretStore"),
        ("chartRef: {kind: OCIRepository, name: ", "OCIRepository"),
        ("- {kind: ConfigMap, name: ", "ConfigMap"),
        ("passwordSecret: {name: ", "ExternalSecret"),
        ("  secret: {name: ", "ExternalSecret"),
        ("accessKeyId: {name: ", "ExternalSecret"),
        ("barmanObjectName: ", "ObjectStore"),
        ("cluster: {name: ", "Cluster"),
        ("  project: ", "AppProject"),
    ];
    let objects = objects();
    let mut findings = Vec::new();
    let mut found = 0;
    for example in files("deploy/examples", &[".yaml"]) {
        for (before, kind) in NAMES {
            for (at, _) in example.text.match_indices(before) {
                let name = word(&example.text[at + before.len()..]);
                found += 1;
                if !objects.iter().any(|object| object.0 == kind && object.2 == name) {
                    findings.push(format!("{}: {kind} {name}", example.path));
                }
            }
        }
    }
    assert!(found > 20, "only {found} names were found");
    none("an example names an object that is in no example", &findings);
}

#[test]
fn no_delivery_file_names_an_account_of_a_registry_or_forge() {
    let ours = ["OWNER/"];
    let mut findings = Vec::new();
    let mut delivery = files("deploy", &[".yaml", ".yml", ".in", ".json", ".gotmpl", ".tpl", "Dockerfile"]);
    delivery.push(file("docker-compose.yml"));
    for File { path, text } in &delivery {
        for host in ["ghcr.io/", "docker.io/", "github.com/", "quay.io/", r"github\.com/"] {
            for (at, _) in text.match_indices(host) {
                let account = &text[at + host.len()..];
                if !ours.iter().any(|name| account.starts_with(name)) {
                    findings.push(format!("{path}: {host}{}", word(account)));
                }
            }
        }
    }
    none("a name of an account that is not ours", &findings);
}

#[test]
fn no_function_of_scripts_is_defined_twice_where_one_sources_the_other() {
    let scripts = files("deploy/scripts", &[".sh"]);
    // An indented function is defined only where its script runs alone, or within another function.
    let functions = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with(' '));
        lines.filter_map(|line| Some(line.split_once("() {")?.0.to_owned())).collect()
    };
    let (mut findings, mut sourced) = (Vec::new(), 0);
    for script in &scripts {
        let mut known: BTreeSet<String> = functions(&script.text).into_iter().collect();
        for line in script.text.lines().filter_map(|line| line.trim_start().strip_prefix(". ")) {
            sourced += 1;
            let other = line.trim_end_matches('"').rsplit('/').next().unwrap_or(line);
            let found = scripts.iter().find(|script| script.path.rsplit('/').next() == Some(other));
            let Some(found) = found else {
                findings.push(format!("{}: {line} is no script", script.path));
                continue;
            };
            let twice = functions(&found.text).into_iter().filter(|name| !known.insert(name.clone()));
            findings.extend(twice.map(|name| format!("{}: {name} of {other}", script.path)));
        }
    }
    assert!(sourced >= 9, "only {sourced} sourced scripts were found");
    none("a function that two scripts define where one sources the other", &findings);
}

#[test]
fn a_build_from_source_finds_every_file_that_it_includes() {
    let listed = file(".dockerignore").text;
    let left_out = |path: &str| {
        let is_below = |folder: &str| path.starts_with(folder.trim_start_matches('/'));
        let kept = listed.lines().filter_map(|line| line.strip_prefix('!')).any(is_below);
        listed.lines().filter(|line| line.starts_with('/')).any(is_below) && !kept
    };
    let mut included = 0;
    let mut findings = Vec::new();
    for source in rust().iter().filter(|source| source.path.contains("/src/")) {
        for (number, line) in source.code() {
            let Some(path) = line.split("include_str!(\"").nth(1).and_then(|rest| rest.split('"').next())
            else {
                continue;
            };
            included += 1;
            if left_out(path.trim_start_matches("../")) {
                findings.push(format!("{}:{number}: .dockerignore leaves {path} out", source.path));
            }
        }
    }
    assert!(included >= 10, "only {included} included files were found");
    none("a file that is compiled in is no part of the context of Docker", &findings);
}

/// Kind, namespace (empty for none) and name of each object in the examples.
fn objects() -> BTreeSet<(String, String, String)> {
    let mut found = BTreeSet::new();
    for example in files("deploy/examples", &[".yaml"]) {
        for document in example.text.split("\n---") {
            let kind = field_at_start(document, "kind: ");
            let name = field(document, "\n  name: ");
            if let (Some(kind), Some(name)) = (kind, name) {
                let namespace = field(document, "\n  namespace: ").unwrap_or_default();
                found.insert((kind.to_owned(), namespace.to_owned(), name.to_owned()));
            }
        }
    }
    found
}

fn field_at_start<'a>(document: &'a str, key: &str) -> Option<&'a str> {
    document.lines().find_map(|line| line.strip_prefix(key)).map(word)
}

fn field<'a>(document: &'a str, key: &str) -> Option<&'a str> {
    document.find(key).map(|at| word(&document[at + key.len()..]))
}

/// The text before a space, a comma, a bracket or the end of the line.
fn word(text: &str) -> &str {
    text.split([' ', ',', '}', ')', '\n']).next().unwrap_or_default()
}

/// Each leaf of the chart's values by its path: a line with a value.
fn values(text: &str) -> Vec<String> {
    let mut parents: Vec<(usize, &str)> = Vec::new();
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let indent = key.len() - key.trim_start().len();
        parents.retain(|(depth, _)| *depth < indent);
        if value.trim().is_empty() {
            parents.push((indent, key.trim()));
        } else {
            let path = parents.iter().map(|(_, parent)| *parent).chain([key.trim()]);
            found.push(path.collect::<Vec<_>>().join("."));
        }
    }
    found
}
