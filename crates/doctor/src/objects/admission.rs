//! Admission: bindings of policies that only audit, namespaces without Pod Security, and images of registries that the
//! expectations do not list, in every field that can name one. Pure; submits nothing.

use serde_json::Value;

use super::finding::{Finding, ObjectRef, Severity};
use super::snapshot::{Kind, Object, Snapshot, items, texts};
use super::workloads::LASTING;
use crate::expectations::Expectations;
use crate::inventory::selects;

pub(crate) const AUDIT_ONLY: &str = "audit-only";
pub(crate) const POD_SECURITY: &str = "pod-security-label";
pub(crate) const FOREIGN_IMAGE: &str = "foreign-image";

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// The annotation that our admission policy reads: the images that a namespace may run.
const IMAGES: &str = "tinjis/images";
const POLICY_PREFIX: &str = "validatingadmissionpolicy/";

/// Each policy that the file relies on must exist, fail closed, and be bound with Deny to the namespace.
pub(crate) fn policy_findings(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let of_images = expectations.images.iter().map(|image| (image.by.as_str(), image.namespace.as_str()));
    let further = expectations.admission.iter();
    let further = further
        .flat_map(|by| expectations.namespaces().into_iter().map(move |namespace| (by.as_str(), namespace)));
    for (by, namespace) in of_images.chain(further) {
        let Some(name) = by.strip_prefix(POLICY_PREFIX) else { continue };
        let mut add = |finding: Finding| {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        };
        let Some(policy) = snapshot.find(Kind::ValidatingAdmissionPolicy, "", name) else {
            let object = ObjectRef::new(Kind::ValidatingAdmissionPolicy, "", name);
            add(Finding::of(object, AUDIT_ONLY, Severity::High, "it does not exist", "apply it again"));
            continue;
        };
        if policy["spec"]["failurePolicy"] == "Ignore" {
            let problem = "its failurePolicy is Ignore: a request that it cannot evaluate is accepted";
            add(Finding::new(policy, AUDIT_ONLY, Severity::High, problem, "set failurePolicy: Fail"));
        }
        let labels = snapshot.find(Kind::Namespace, "", namespace).map(Object::labels);
        let bindings = snapshot.of(Kind::ValidatingAdmissionPolicyBinding).iter();
        let bindings: Vec<&Object> =
            bindings.filter(|binding| binding["spec"]["policyName"] == name).collect();
        let reaches = |binding: &&&Object| {
            let selector = &binding["spec"]["matchResources"]["namespaceSelector"];
            selector.is_null() || labels.is_some_and(|labels| selects(selector, labels))
        };
        let denies =
            |binding: &&Object| texts(&binding["spec"]["validationActions"]).any(|action| action == "Deny");
        let here: Vec<&&Object> = bindings.iter().filter(reaches).collect();
        if here.iter().any(|binding| denies(binding)) {
            continue;
        }
        match here.first() {
            Some(binding) => {
                let actions: Vec<&str> = texts(&binding["spec"]["validationActions"]).collect();
                let problem = format!("its validationActions are {}: nothing is refused", actions.join(", "));
                add(Finding::new(
                    binding,
                    AUDIT_ONLY,
                    Severity::High,
                    problem,
                    "set validationActions: [Deny]",
                ));
            }
            None => {
                let problem = format!("no binding applies it to namespace {namespace}");
                let remedy = "add a ValidatingAdmissionPolicyBinding, or correct its namespaceSelector";
                add(Finding::new(policy, AUDIT_ONLY, Severity::High, problem, remedy));
            }
        }
    }
    findings
}

pub(crate) fn pod_security(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let namespaces: Vec<&str> = match &expectations.restricted {
        Some(listed) => listed.iter().map(String::as_str).collect(),
        None => expectations.namespaces().into_iter().collect(),
    };
    let finding = |name: &str| {
        let namespace = snapshot.find(Kind::Namespace, "", name)?;
        let level = namespace.labels()[ENFORCE].as_str();
        let problem = match level {
            Some("restricted") => return None,
            Some(level) => format!("{ENFORCE} is {level}"),
            None => format!("{ENFORCE} is not set"),
        };
        let remedy = format!("kubectl label namespace {name} {ENFORCE}=restricted --overwrite");
        Some(Finding::new(namespace, POD_SECURITY, Severity::High, problem, remedy))
    };
    namespaces.into_iter().filter_map(finding).collect()
}

pub(crate) fn is_restricted(namespace: &Object) -> bool {
    namespace.labels()[ENFORCE] == "restricted"
}

/// Compares images in pods and templates of the environment, and those that a namespace permits, with the listed
/// registries. Compares nothing without listed registries.
pub(crate) fn images(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    if expectations.registries.is_empty() {
        return Vec::new();
    }
    let namespaces = expectations.namespaces();
    let foreign = |image: &str| !is_listed(expectations, image);
    let mut findings = Vec::new();
    let objects = LASTING.iter().flat_map(|kind| snapshot.of(*kind)).chain(snapshot.of(Kind::Pod));
    for object in objects.filter(|object| namespaces.contains(object.namespace())) {
        for (field, image) in images_of(object.pod_spec()) {
            if foreign(image) {
                findings.push(Finding::new(
                    object,
                    FOREIGN_IMAGE,
                    Severity::High,
                    format!("{field} is {image}, of a registry that the expectations do not list"),
                    "use an image of a listed registry, or list the registry in `registries`",
                ));
            }
        }
    }
    let existing = snapshot.of(Kind::Namespace).iter();
    for namespace in existing.filter(|namespace| namespaces.contains(namespace.name())) {
        let listed = namespace["metadata"]["annotations"][IMAGES].as_str().unwrap_or_default();
        for image in listed.split(',').map(str::trim).filter(|image| !image.is_empty() && foreign(image)) {
            findings.push(Finding::new(
                namespace,
                FOREIGN_IMAGE,
                Severity::High,
                format!(
                    "its annotation {IMAGES} permits {image}, of a registry that the expectations do not list"
                ),
                format!("remove the image from {IMAGES}, or list the registry in `registries`"),
            ));
        }
    }
    findings
}

/// Every field of a pod that can name an image, with its path.
pub(crate) fn images_of(pod: &Value) -> Vec<(String, &str)> {
    let containers = ["containers", "initContainers", "ephemeralContainers"].into_iter();
    let containers = containers.flat_map(|field| items(&pod[field]).map(move |container| (field, container)));
    let containers = containers.map(|(field, container)| (field, &container["name"], &container["image"]));
    let volumes =
        items(&pod["volumes"]).map(|volume| ("volumes", &volume["name"], &volume["image"]["reference"]));
    let named = containers.chain(volumes).filter_map(|(field, name, image)| {
        Some((format!("the image of {field} {}", name.as_str().unwrap_or_default()), image.as_str()?))
    });
    named.collect()
}

/// Whether a registry of the expectations contains the image. An entry of one word is an organisation or an official
/// image of Docker's registry.
fn is_listed(expectations: &Expectations, image: &str) -> bool {
    let image = repository(image);
    let is_within = |listed: &str| {
        image.strip_prefix(listed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    expectations.registries.iter().any(|listed| {
        let organisation = (!listed.contains(['/', '.', ':'])).then(|| format!("docker.io/{listed}"));
        is_within(&repository(listed)) || organisation.is_some_and(|listed| is_within(&listed))
    })
}

/// The full name without tag and digest: Docker's defaults are filled in, as a container runtime does.
pub(crate) fn repository(image: &str) -> String {
    let image = image.split('@').next().unwrap_or(image);
    let image = match image.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => image,
    };
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
        None if image.contains('.') => image.to_owned(),
        None => format!("docker.io/library/{image}"),
    }
}
