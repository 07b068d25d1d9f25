//! Clients that share no code with this project: openssl, curl, and the TLS of Go and of Java. Missing tools are
//! skipped with a notice; openssl and curl are never missing in CI.

use crate::authority::Pair;
use crate::site::{NAME, Site, put};
use chassis::tls::Refusal;
use std::process::{Command, Output, Stdio};
use testkit::requirements::{has, may_have, skip_notice};

const JAVA: &str = "Java's TLS as a client";

async fn run(program: &'static str, arguments: Vec<String>) -> Output {
    let output = tokio::task::spawn_blocking(move || {
        // The Go tool must not fetch another version of itself.
        Command::new(program).args(arguments).env("GOTOOLCHAIN", "local").stdin(Stdio::null()).output()
    });
    output.await.unwrap().unwrap()
}

async fn openssl(site: &Site, more: &[&str]) -> String {
    let mut arguments: Vec<String> =
        ["s_client", "-connect", &site.address.to_string(), "-ign_eof"].map(ToOwned::to_owned).into();
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    let output = run("openssl", arguments).await;
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn curl(site: &Site, shows: &Pair) -> Output {
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
    if !has("curl", "curl as a client") {
        return;
    }
    let output = curl(&site, &site.authority.client(NAME)).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), NAME, "{output:?}");
    let refused = curl(&site, &site.authority.client("other.test")).await;
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
}

/// A call by Java, which reads keys from a key store that openssl makes.
async fn java(site: &Site, shows: &Pair) -> Output {
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
    run("openssl", words.map(ToOwned::to_owned).into()).await;
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/Client.java");
    let url = format!("https://localhost:{}/who", site.address.port());
    run("java", [program, &url, &store, &path("ca.pem")].map(ToOwned::to_owned).into()).await
}

#[tokio::test]
async fn java_is_let_in_with_its_certificate_and_refused_with_foreign() {
    let site = Site::open().await;
    if !may_have("java", JAVA) || !has("openssl", JAVA) {
        return;
    }
    let modules = String::from_utf8(run("java", vec!["--list-modules".to_owned()]).await.stdout).unwrap();
    if !["jdk.compiler@", "java.net.http@"].iter().all(|needed| modules.contains(needed)) {
        return skip_notice(JAVA, "this Java has no compiler or no java.net.http");
    }
    let output = java(&site, &site.authority.client(NAME)).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), NAME, "{output:?}");
    let refused = java(&site, &site.authority.client("other.test")).await;
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    assert!(site.refusals(Refusal::WrongName) > 0);
}

async fn go(site: &Site, shows: &Pair) -> Output {
    let folder = site.folder.path();
    put(folder, "go", shows);
    std::fs::write(folder.join("ca.pem"), site.authority.pem()).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/client.go");
    let url = format!("https://localhost:{}/who", site.address.port());
    let words = ["run", program, &url, &path("go.pem"), &path("go.key"), &path("ca.pem")];
    run("go", words.map(ToOwned::to_owned).into()).await
}

#[tokio::test]
async fn go_is_let_in_with_its_certificate_also_resumed_and_refused_with_foreign() {
    let site = Site::open().await;
    if !may_have("go", "Go's TLS as a client") {
        return;
    }
    let output = go(&site, &site.authority.client(NAME)).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), NAME, "{output:?}");
    let handshakes = |kind: &str| site.figure(&format!("tls_handshakes_total{{kind=\"{kind}\"}}"));
    assert_eq!((handshakes("full"), handshakes("resumed")), (1, 2));
    let refused = go(&site, &site.authority.client("other.test")).await;
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    assert!(site.refusals(Refusal::WrongName) > 0);
}

#[tokio::test]
async fn openssl_gets_tls_1_3_and_nothing_older() {
    let site = Site::open().await;
    if !has("openssl", "openssl as a client") {
        return;
    }
    let older = openssl(&site, &["-tls1_2"]).await;
    assert!(older.contains("alert protocol version"), "{older}");
    put(site.folder.path(), "openssl", &site.authority.client(NAME));
    let path = |name: &str| site.folder.path().join(name).display().to_string();
    let shown = ["-cert", &path("openssl.pem"), "-key", &path("openssl.key"), "-tls1_3", "-no_ign_eof"];
    let newer = openssl(&site, &shown).await;
    assert!(newer.contains("Cipher is TLS_AES_256_GCM_SHA384"), "{newer}");
}
