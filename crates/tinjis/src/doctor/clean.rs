//! Takes back whatever a doctor has made: this one, or one that was interrupted. Deletes by the doctor's mark alone;
//! knows no trial.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use super::facts::text;
use super::kube::Kube;
use super::pods::MARK;

/// Until its pods and namespaces must be gone.
const GONE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Takes away probes and certificates in these namespaces, and the doctor's own namespaces; returns when they are
/// gone, or names those that stay.
pub(super) async fn clean(kube: &Kube, namespaces: &[&str]) -> anyhow::Result<()> {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        // Each time anew: a request that was on its way when the doctor was interrupted may still arrive.
        let left = sweep(kube, namespaces).await?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not gone after {} s: {}", GONE_WITHIN.as_secs(), left.join(", "));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Deletes, and says what is still there.
async fn sweep(kube: &Kube, namespaces: &[&str]) -> anyhow::Result<Vec<String>> {
    let mark = format!("labelSelector={MARK}");
    let mut left = Vec::new();
    for namespace in namespaces {
        let core = format!("/api/v1/namespaces/{namespace}");
        let certificates = format!("/apis/cert-manager.io/v1/namespaces/{namespace}/certificates");
        for (kind, path) in [
            ("certificate", certificates),
            ("secret", format!("{core}/secrets")),
            ("pod", format!("{core}/pods")),
        ] {
            let path = format!("{path}?{mark}");
            let there = kube.list(&path).await?;
            if !there.is_empty() {
                kube.delete(&path).await?;
            }
            left.extend(
                there
                    .iter()
                    .map(|object| format!("{kind} {namespace}/{}", text(&object["metadata"]["name"]))),
            );
        }
    }
    for namespace in kube.list(&format!("/api/v1/namespaces?{mark}")).await? {
        let name = text(&namespace["metadata"]["name"]);
        if namespace["metadata"]["deletionTimestamp"].is_null() {
            kube.delete(&format!("/api/v1/namespaces/{name}")).await?;
        }
        left.push(format!("namespace {name}"));
    }
    Ok(left)
}
