//! The client: which servers it trusts, which it never calls, and that its pool follows a change of files.

use crate::authority::{Authority, Pair};
use crate::site::{NAME, Site, ask, connect, pair_of, put, source};
use bytes::Bytes;
use chassis::client::{Client, ClientConfig, Failure};
use chassis::tls::{ClientFiles, ReloadOutcome};
use std::fs;

#[tokio::test]
async fn a_server_of_another_authority_or_name_is_not_sent_anything() {
    let site = Site::open().await;
    let client = site.client(Some(&site.authority.client(NAME)));
    assert_eq!(site.ask(&client).await.unwrap(), NAME);

    let folder = site.folder.path();
    fs::write(folder.join("other-ca.pem"), Authority::new("other").pem()).unwrap();
    let files = ClientFiles {
        trusted: Some(source(folder.join("other-ca.pem"))),
        system_too: false,
        identity: Some(pair_of(folder, "client")),
    };
    let stranger = Client::with_connect(ClientConfig::default(), connect(files));
    assert!(matches!(site.ask(&stranger).await, Err(Failure::NotSent(_))));

    // This address is not in the certificate.
    let uri = format!("https://127.0.0.2:{}/who", site.address.port());
    let request = http::Request::get(uri).body(Bytes::new()).unwrap();
    assert!(matches!(client.send(request).await, Err(Failure::NotSent(_))));
}

#[tokio::test]
async fn a_client_over_tls_sends_nothing_in_plain_text_and_the_other_way_round() {
    let site = Site::open().await;
    let client = site.client(Some(&site.authority.client(NAME)));
    let call = |scheme: &str| {
        http::Request::get(format!("{scheme}://localhost:{}/who", site.address.port()))
            .body(Bytes::new())
            .unwrap()
    };
    assert!(matches!(client.send(call("http")).await, Err(Failure::NotSent(_))));
    let plain = Client::new(ClientConfig::default());
    assert!(matches!(plain.send(call("https")).await, Err(Failure::NotSent(_))));
    assert!(matches!(plain.send(call("http")).await, Err(Failure::Unknown(_))), "the server hangs up");
    assert!(client.send(call("https")).await.is_ok());
}

#[tokio::test]
async fn connections_made_with_older_material_are_not_used_again() {
    let site = Site::open().await;
    let folder = site.folder.path();
    fs::write(folder.join("provider-ca.pem"), site.authority.pem()).unwrap();
    put(folder, "client", &site.authority.client(NAME));
    let files = ClientFiles {
        trusted: Some(source(folder.join("provider-ca.pem"))),
        system_too: false,
        identity: Some(pair_of(folder, "client")),
    };
    let connect = connect(files);
    let client = Client::with_connect(ClientConfig::default(), connect.clone());
    assert_eq!(ask(&client, site.address).await.unwrap(), NAME);
    put(folder, "client", &site.authority.client("client.test"));
    assert_eq!(ask(&client, site.address).await.unwrap(), NAME, "the files have not been read again yet");
    assert_eq!(connect.reload_if_changed(), ReloadOutcome::Published);
    assert_eq!(ask(&client, site.address).await.unwrap(), "client.test");
}

/// Whether a client that trusts `trusted` accepts a server with the certificate `pair`.
async fn is_trusted(pair: &Pair, trusted: &str) -> bool {
    let site = Site::open().await;
    let folder = site.folder.path();
    put(folder, "server", pair);
    assert_ne!(site.tls.reload_if_changed(), ReloadOutcome::Bad);
    put(folder, "client", &site.authority.client(NAME));
    fs::write(folder.join("trusted.pem"), trusted).unwrap();
    let files = ClientFiles {
        trusted: Some(source(folder.join("trusted.pem"))),
        system_too: false,
        identity: Some(pair_of(folder, "client")),
    };
    let client = Client::with_connect(ClientConfig::default(), connect(files));
    match site.ask(&client).await {
        Ok(name) => name == NAME,
        Err(Failure::NotSent(_)) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_pinned_certificate_is_trusted_exactly_whoever_signed_it() {
    let authority = Authority::new("unknown to the client");
    let (pinned, other) = (authority.server(), authority.server());
    assert!(is_trusted(&pinned, &pinned.certificate).await);
    assert!(!is_trusted(&other, &pinned.certificate).await, "another leaf of the same name");
    assert!(is_trusted(&other, &authority.pem()).await);
    assert!(is_trusted(&other, &(pinned.certificate.clone() + &other.certificate)).await);
}
