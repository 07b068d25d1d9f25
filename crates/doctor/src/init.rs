//! Proposes an expectations file for namespaces that the doctor has never seen: existing objects become expectations,
//! and findings that no list can express are accepted by name. Pure; reads no cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

use crate::expectations::{ANY_SOURCE, Expectations, NEIGHBOUR_PREFIX, SubjectKind};
use crate::objects::bindings::{Holder, rules_of, subjects, weights};
use crate::objects::reach::{self, Pod};
use crate::objects::snapshot::{Kind, Object, Snapshot, items};
use crate::objects::{admission, availability, compare, policies, routes, settings};

/// The reason for accepting a finding that no reader has judged yet.
const UNSEEN: &str = "was there when this file was proposed; not reviewed";
/// A namespace that no selector by name selects.
const ELSEWHERE: &str = "tinjis-doctor-elsewhere";
const KUBE_SYSTEM: &str = "kube-system";

/// The proposed text of the file. A run with it over the same objects has no finding.
pub(crate) fn propose(snapshot: &Snapshot, namespaces: &[&str]) -> Result<String, String> {
    check(snapshot, namespaces)?;
    let mut text = head(snapshot, namespaces);
    let all: Vec<&Object> =
        namespaces.iter().flat_map(|namespace| workloads_of(snapshot, namespace)).collect();
    for workload in &all {
        write_workload(&mut text, snapshot, workload);
    }
    write_paths(&mut text, snapshot, &all, namespaces);
    let so_far = parse(&text)?;
    text.push_str(&subject_tables(snapshot, namespaces));
    for (workload, name, value) in settings::weak_values(&so_far, snapshot) {
        let _ = write!(
            text,
            "\n[[setting]]\nworkload = {}\nname = {}\nvalue = {}\n",
            quoted(&workload),
            quoted(&name),
            quoted(&value)
        );
    }
    for (to, hosts, paths) in routes::existing(&so_far, snapshot) {
        let _ = write!(
            text,
            "\n[[route]]\nto = {}\nhosts = {}\npaths = {}\n",
            quoted(&to),
            list(&Vec::from_iter(hosts)),
            list(&Vec::from_iter(paths))
        );
    }
    for (workload, direction, cidr) in policies::blocks(&so_far, snapshot) {
        let _ = write!(
            text,
            "\n[[address]] # every port\nworkload = {}\ndirection = {}\ncidr = {}\n",
            quoted(&workload),
            quoted(direction),
            quoted(&cidr)
        );
    }
    accept_rest(&mut text, snapshot)?;
    Ok(text)
}

fn check(snapshot: &Snapshot, namespaces: &[&str]) -> Result<(), String> {
    let unreadable: Vec<&str> = Kind::ALL.iter().filter_map(|kind| snapshot.unreadable(*kind)).collect();
    if !unreadable.is_empty() {
        return Err(format!("{}; grant the rights of deploy/doctor/read-only.yaml", unreadable.join("; ")));
    }
    for namespace in namespaces {
        if snapshot.find(Kind::Namespace, "", namespace).is_none() {
            return Err(format!("namespace {namespace} does not exist"));
        }
        if workloads_of(snapshot, namespace).next().is_none() {
            return Err(format!("namespace {namespace} has no Deployment and no StatefulSet"));
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Expectations, String> {
    Expectations::parse(text).map_err(|error| format!("the proposed file is not valid: {error}"))
}

fn workloads_of<'a>(snapshot: &'a Snapshot, namespace: &'a str) -> impl Iterator<Item = &'a Object> {
    let stateful = snapshot.within(Kind::StatefulSet, namespace);
    snapshot.within(Kind::Deployment, namespace).chain(stateful)
}

/// A TOML string: JSON's escapes are a part of TOML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn list<T: AsRef<str>>(texts: &[T]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

fn head(snapshot: &Snapshot, namespaces: &[&str]) -> String {
    let hosts = snapshot.of(Kind::Pod).iter().filter(|pod| pod["spec"]["hostNetwork"] == true);
    let mut platform: BTreeSet<&str> = hosts.map(Object::namespace).collect();
    platform.retain(|namespace| !namespaces.contains(namespace));
    platform.insert(KUBE_SYSTEM);
    let lasting = namespaces.iter().flat_map(|namespace| workloads_of(snapshot, namespace));
    let pods = snapshot.of(Kind::Pod).iter().filter(|pod| namespaces.contains(&pod.namespace()));
    let images = lasting.chain(pods).flat_map(|object| admission::images_of(object.pod_spec()));
    let registry = |image: &str| {
        let repository = admission::repository(image);
        repository.rsplit_once('/').map_or(repository.clone(), |(parent, _)| parent.to_owned())
    };
    let registries: Vec<String> =
        images.map(|(_, image)| registry(image)).collect::<BTreeSet<_>>().into_iter().collect();
    let restricted = namespaces.iter().copied().filter(|namespace| {
        snapshot.find(Kind::Namespace, "", namespace).is_some_and(admission::is_restricted)
    });
    let restricted: Vec<&str> = restricted.collect();
    let denies = namespaces.iter().all(|namespace| policies::denies_by_default(snapshot, namespace));
    let survive: Vec<&str> = namespaces
        .iter()
        .flat_map(|namespace| workloads_of(snapshot, namespace))
        .filter(|workload| availability::problems(workload, snapshot).is_empty())
        .map(Object::name)
        .collect();
    format!(
        "# Proposed by `tinjis doctor init {}` from what was there. Everything listed below is taken for meant: review\n\
         # each entry, delete what should not be, and what is then found is a hole. docs/reference/doctor.md explains\n\
         # the keys.\n\
         environment = {}\n\
         default_deny = {denies} # whether each namespace denies all ingress and egress by default\n\
         evictions = {} # tested by evicting two pods; without --read-only\n\
         restricted = {} # namespaces that enforce Pod Security restricted\n\
         # Namespaces whose ServiceAccounts and pods on the node's network belong to the platform.\n\
         platform = {}\n\
         registries = {}\n",
        namespaces.join(" "),
        quoted(&namespaces.join("-")),
        list(&survive),
        list(&restricted),
        list(&Vec::from_iter(platform)),
        list(&registries),
    )
}

fn write_workload(text: &mut String, snapshot: &Snapshot, workload: &Object) {
    let (name, namespace) = (quoted(workload.name()), quoted(workload.namespace()));
    let _ = write!(text, "\n[[workload]]\nname = {name}\nnamespace = {namespace}\n");
    if workload.kind == Kind::StatefulSet {
        text.push_str("kind = \"statefulset\"\n");
    }
    let pod = Pod::of(workload);
    if let Some(policy) = reach::own_policy(snapshot, pod) {
        let _ = writeln!(text, "policy = {}", quoted(policy));
    }
    if reach::has_open_egress(snapshot, pod) {
        text.push_str("open_egress = true # no NetworkPolicy limits where it connects to\n");
    } else if !reach::may_use_dns(snapshot, pod) {
        text.push_str("names = false # may not use DNS\n");
    }
    let clients = settings::allowed_clients(workload, snapshot);
    if !clients.is_empty() {
        let _ = writeln!(text, "clients = {} # TLS_ALLOWED_CLIENTS", list(&clients));
    }
}

/// The declared ports of a workload: name and number.
fn ports(workload: &Object) -> Vec<(&str, u16)> {
    let ports = items(&workload.pod_spec()["containers"]).flat_map(|container| items(&container["ports"]));
    let ports = ports.filter_map(|port| {
        let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
        Some((port["name"].as_str().unwrap_or_default(), number))
    });
    ports.collect()
}

/// Sources by namespace and labels, with the names that paths use.
#[derive(Default)]
struct Sources(Vec<(String, Value)>);

impl Sources {
    fn name(&mut self, namespace: &str, labels: &Value) -> String {
        let is_known = |(known, its): &(String, Value)| known == namespace && its == labels;
        let at = self.0.iter().position(is_known).unwrap_or_else(|| {
            self.0.push((namespace.to_owned(), labels.clone()));
            self.0.len() - 1
        });
        format!("source-{}-{namespace}", at + 1)
    }

    fn write(&self, text: &mut String) {
        for (at, (namespace, labels)) in self.0.iter().enumerate() {
            let labels = labels.as_object().into_iter().flatten();
            let labels: Vec<String> =
                labels.map(|(key, value)| format!("{} = {value}", quoted(key))).collect();
            let _ = write!(
                text,
                "\n[[source]] # pods that a NetworkPolicy accepts\nname = {}\nnamespace = {}\nlabels = {{ {} }}\n",
                quoted(&format!("source-{}-{namespace}", at + 1)),
                quoted(namespace),
                labels.join(", ")
            );
        }
    }
}

/// Each port with each caller that the policies of both sides accept.
fn write_paths(text: &mut String, snapshot: &Snapshot, workloads: &[&Object], namespaces: &[&str]) {
    let (mut sources, mut lines) = (Sources::default(), String::new());
    for to in workloads {
        for port in ports(to) {
            for from in callers(snapshot, to, port, workloads, namespaces, &mut sources) {
                let (from, to) = (quoted(&from), quoted(to.name()));
                let _ = write!(lines, "\n[[path]]\nfrom = {from}\nto = {to}\nport = {}\n", port.1);
            }
        }
    }
    sources.write(text);
    text.push_str(&lines);
}

/// The callers of a port, as paths name them.
fn callers(
    snapshot: &Snapshot,
    to: &Object,
    port: (&str, u16),
    workloads: &[&Object],
    namespaces: &[&str],
    sources: &mut Sources,
) -> BTreeSet<String> {
    let none = Value::Object(serde_json::Map::new());
    let unlabelled = |namespace| Pod { namespace, labels: &none };
    let mut names = BTreeSet::new();
    for caller in workloads.iter().filter(|caller| caller.reference() != to.reference()) {
        let pod = Pod::of(caller);
        if reach::accepts(snapshot, to, pod, port) && reach::may_connect(snapshot, pod, to, port) {
            names.insert(caller.name().to_owned());
        }
    }
    if reach::accepts(snapshot, to, unlabelled(ELSEWHERE), port) {
        names.insert(ANY_SOURCE.to_owned());
        return names;
    }
    for namespace in namespaces {
        if reach::accepts(snapshot, to, unlabelled(namespace), port) {
            names.insert(format!("{NEIGHBOUR_PREFIX}{namespace}"));
        }
    }
    for (namespace, labels) in reach::sources(snapshot, to, port) {
        let pod =
            |caller: &&Object| caller.namespace() == namespace && has_all(Pod::of(caller).labels, &labels);
        let is_neighbour = labels == none && namespaces.contains(&namespace.as_str());
        if !is_neighbour && !workloads.iter().any(pod) {
            names.insert(sources.name(&namespace, &labels));
        }
    }
    names
}

/// Whether these labels include all of the others. A selector of all pods is not a workload.
fn has_all(labels: &Value, others: &Value) -> bool {
    let mut others = others.as_object().into_iter().flatten().peekable();
    others.peek().is_some() && others.all(|(key, value)| labels[key] == *value)
}

/// Every subject with rights of weight in the namespaces.
fn subject_tables(snapshot: &Snapshot, namespaces: &[&str]) -> String {
    let mut holders: BTreeMap<Holder, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
    let here = snapshot.of(Kind::RoleBinding).iter();
    let here = here.filter(|binding| namespaces.contains(&binding.namespace()));
    for binding in here.chain(snapshot.of(Kind::ClusterRoleBinding)) {
        let rights = rules_of(binding, snapshot).map(weights).unwrap_or_default();
        if rights.is_empty() {
            continue;
        }
        for holder in subjects(binding).into_iter().filter(|holder| !is_built_in(holder)) {
            let (within, may) = holders.entry(holder).or_default();
            within.insert(binding.namespace());
            may.extend(&rights);
        }
    }
    let mut text = String::new();
    for (holder, (within, may)) in holders {
        let _ = write!(
            text,
            "\n[[subject]]\nkind = {}\nname = {}\n",
            quoted(holder.kind.as_str()),
            quoted(&holder.name)
        );
        if holder.kind == SubjectKind::ServiceAccount {
            let _ = writeln!(text, "namespace = {}", quoted(&holder.namespace));
        }
        // An empty namespace is that of a ClusterRoleBinding.
        if !within.contains("") {
            let _ = writeln!(text, "in = {}", list(&Vec::from_iter(within)));
        }
        let _ = writeln!(text, "may = {}", list(&Vec::from_iter(may)));
    }
    text
}

/// Whether the subject belongs to Kubernetes itself, and so needs no entry.
fn is_built_in(holder: &Holder) -> bool {
    crate::objects::bindings::is_of_platform(&[KUBE_SYSTEM.to_owned()], holder)
}

/// Accepts the findings that no list can express, by rule and object, until a reader decides.
fn accept_rest(text: &mut String, snapshot: &Snapshot) -> Result<(), String> {
    let expectations = parse(text)?;
    let mut seen = BTreeSet::new();
    for finding in compare(&expectations, snapshot).into_iter().flat_map(|compared| compared.findings) {
        let object = finding.object.to_string();
        let first = !seen.contains(&(finding.rule, object.clone()));
        let _ = writeln!(text, "{}# {}", if first { "\n" } else { "" }, finding.problem);
        if seen.insert((finding.rule, object.clone())) {
            let _ = write!(
                text,
                "[[accept]]\nrule = {}\nobject = {}\nwhy = {}\n",
                quoted(finding.rule),
                quoted(&object),
                quoted(UNSEEN)
            );
        }
    }
    parse(text).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::tests::{holes, sound};

    const NAMESPACES: [&str; 2] = ["antaeus", "payments"];

    fn found(text: &str, snapshot: &Snapshot) -> usize {
        let expectations = Expectations::parse(text).unwrap();
        compare(&expectations, snapshot).iter().map(|compared| compared.findings.len()).sum()
    }

    #[test]
    fn a_run_right_after_a_proposal_has_no_finding_whatever_is_there() {
        let text = propose(&sound(), &NAMESPACES).unwrap();
        assert_eq!(found(&text, &sound()), 0, "{text}");
        for (name, snapshot) in holes::planted() {
            let text = propose(&snapshot, &NAMESPACES).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found(&text, &snapshot), 0, "{name}: {text}");
        }
    }

    /// A proposal cannot know the callers by certificate and the admission policies; all other holes must be found.
    #[test]
    fn holes_that_are_planted_after_a_proposal_are_found() {
        let text = propose(&sound(), &NAMESPACES).unwrap();
        let unknown = ["open-issuer", "copied-name", "audit-only", "team-permission", "caller-names"];
        let mut tried = 0;
        for (name, rule, snapshot) in holes::planted_by_rule() {
            if !unknown.contains(&rule) {
                tried += 1;
                assert!(found(&text, &snapshot) > 0, "{name}: {text}");
            }
        }
        assert!(tried > 30, "{tried}");
    }

    #[test]
    fn a_proposal_lists_what_is_there() {
        let text = propose(&sound(), &NAMESPACES).unwrap();
        for part in [
            "environment = \"antaeus-payments\"",
            "default_deny = true",
            "evictions = [\"payments\"]",
            "registries = [\"docker.io/tinjis\"]",
            "[[path]]\nfrom = \"antaeus\"\nto = \"payments\"\nport = 9000",
            "namespace = \"monitoring\"\nlabels = {  }",
            "kind = \"Group\"\nname = \"team-payments\"\nin = [\"payments\"]\nmay = [\"change workloads\"]",
            "hosts = [\"antaeus.example.com\"]\npaths = [\"/v1/invoices\"]",
            "clients = [\"spiffe://tinjis/ns/antaeus/sa/antaeus\", ",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("[[accept]]\n"), "{text}");
    }

    #[test]
    fn a_namespace_without_workloads_or_one_that_is_not_there_is_refused() {
        for (namespace, message) in [("lab", "no Deployment"), ("none", "does not exist")] {
            let error = propose(&sound(), &[namespace]).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let mut snapshot = sound();
        snapshot.refuse(Kind::Role, "GET /roles: 403");
        assert!(propose(&snapshot, &NAMESPACES).unwrap_err().contains("read-only.yaml"));
    }
}
