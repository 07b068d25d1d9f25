//! Clients that share no code with us: openssl, curl and Java's own TLS. Looked for, and asked only if they are there.

use crate::authority::Pair;
use crate::site::{NAME, Site, put};
use chassis::tls::Refusal;
use std::process::{Command, Output, Stdio};

async fn run(program: &'static str, arguments: Vec<String>) -> Option<Output> {
    let output = tokio::task::spawn_blocking(move || {
        Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()
    });
    output.await.unwrap()
}

async fn openssl(site: &Site, more: &[&str]) -> Option<String> {
    let mut arguments: Vec<String> =
        ["s_client", "-connect", &site.address.to_string(), "-ign_eof"].map(ToOwned::to_owned).into();
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    let output = run("openssl", arguments).await?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

async fn curl(site: &Site, shows: &Pair) -> Option<Output> {
    let folder = site.folder.path();
    put(folder, "curl", shows);
    std::fs::write(folder.join("ca.pem"), site.authority.pem()).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let url = format!("https://localhost:{}/who", site.address.port());
    let (ca, certificate, key) = (path("ca.pem"), path("curl.pem"), path("curl.key"));
    let arguments = ["-sS", "--max-time", "10", "--cacert", &ca, "--cert", &certificate, "--key", &key, &url];
    run("curl", arguments.map(ToOwned::to_owned).into()).await
}

#[tokio::test]
async fn curl_is_let_in_with_its_certificate_and_refused_with_foreign() {
    let site = Site::open().await;
    let Some(output) = curl(&site, &site.authority.client(NAME)).await else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout), NAME, "{output:?}");
    let refused = curl(&site, &site.authority.client("other.test")).await.unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
}

/// Java reads keys from a store, which openssl makes.
async fn java(site: &Site, shows: &Pair) -> Option<Output> {
    let modules = String::from_utf8(run("java", vec!["--list-modules".to_owned()]).await?.stdout).ok()?;
    if !["jdk.compiler@", "java.net.http@"].iter().all(|needed| modules.contains(needed)) {
        return None;
    }
    let folder = site.folder.path();
    put(folder, "java", shows);
    std::fs::write(folder.join("ca.pem"), site.authority.pem()).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let (certificate, key, store) = (path("java.pem"), path("java.key"), path("java.p12"));
    let words = [
        "pkcs12",
        "-export",
        "-passout",
        "pass:changeit",
        "-in",
        &certificate,
        "-inkey",
        &key,
        "-out",
        &store,
    ];
    run("openssl", words.map(ToOwned::to_owned).into()).await?;
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/Client.java");
    let url = format!("https://localhost:{}/who", site.address.port());
    run("java", [program, &url, &store, &path("ca.pem")].map(ToOwned::to_owned).into()).await
}

#[tokio::test]
async fn java_is_let_in_with_its_certificate_and_refused_with_foreign() {
    let site = Site::open().await;
    let Some(output) = java(&site, &site.authority.client(NAME)).await else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout), NAME, "{output:?}");
    let refused = java(&site, &site.authority.client("other.test")).await.unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    assert!(site.refusals(Refusal::WrongName) > 0);
}

#[tokio::test]
async fn openssl_gets_tls_1_3_and_nothing_older() {
    let site = Site::open().await;
    let Some(older) = openssl(&site, &["-tls1_2"]).await else { return };
    assert!(older.contains("alert protocol version"), "{older}");
    put(site.folder.path(), "openssl", &site.authority.client(NAME));
    let path = |name: &str| site.folder.path().join(name).display().to_string();
    let shown = ["-cert", &path("openssl.pem"), "-key", &path("openssl.key"), "-tls1_3", "-no_ign_eof"];
    let newer = openssl(&site, &shown).await.unwrap();
    assert!(newer.contains("Cipher is TLS_AES_256_GCM_SHA384"), "{newer}");
}
