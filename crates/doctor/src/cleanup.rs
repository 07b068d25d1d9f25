//! Deletes everything that this run or an interrupted one created. Selects by the doctor's label alone; knows no check.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use crate::inventory::text;
use crate::kube::KubeClient;
use crate::pods::LABEL;

/// Maximum time for pods and namespaces to disappear.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Deletes probe pods and certificates in these namespaces, and the doctor's own namespaces. Returns when they are
/// gone; the error names those that are left.
pub(crate) async fn clean(kube: &KubeClient, namespaces: &[&str]) -> anyhow::Result<()> {
    let deadline = Instant::now() + CLEANUP_TIMEOUT;
    loop {
        // Listed again each time: a request in flight when the doctor was interrupted may still arrive.
        let left = sweep(kube, namespaces).await?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not deleted after {} s: {}", CLEANUP_TIMEOUT.as_secs(), left.join(", "));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Deletes once, and returns what still exists.
async fn sweep(kube: &KubeClient, namespaces: &[&str]) -> anyhow::Result<Vec<String>> {
    let selector = format!("labelSelector={LABEL}");
    let mut left = Vec::new();
    for namespace in namespaces {
        let core = format!("/api/v1/namespaces/{namespace}");
        let certificates = format!("/apis/cert-manager.io/v1/namespaces/{namespace}/certificates");
        for (kind, path) in [
            ("certificate", certificates),
            ("secret", format!("{core}/secrets")),
            ("pod", format!("{core}/pods")),
        ] {
            let path = format!("{path}?{selector}");
            let objects = kube.list(&path).await?;
            if !objects.is_empty() {
                kube.delete(&path).await?;
            }
            left.extend(
                objects
                    .iter()
                    .map(|object| format!("{kind} {namespace}/{}", text(&object["metadata"]["name"]))),
            );
        }
    }
    for namespace in kube.list(&format!("/api/v1/namespaces?{selector}")).await? {
        let name = text(&namespace["metadata"]["name"]);
        if namespace["metadata"]["deletionTimestamp"].is_null() {
            kube.delete(&format!("/api/v1/namespaces/{name}")).await?;
        }
        left.push(format!("namespace {name}"));
    }
    Ok(left)
}
