//! What a change of files does to a running server and to a running client.

use crate::authority::Authority;
use crate::site::{NAME, Site, ask, put, server_files};
use chassis::client::Failure;
use chassis::clock::Clock;
use chassis::server::Limits;
use chassis::telemetry::Telemetry;
use chassis::tls::{Refusal, ReloadOutcome, ServerTls, TlsMetrics};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_new_leaf_is_served_and_a_broken_one_changes_nothing_but_a_figure() {
    let site = Site::open().await;
    let folder = site.folder.path();
    let client = site.client(Some(&site.authority.client(NAME)));
    assert_eq!(site.ask(&client).await.unwrap(), NAME);
    assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Same);

    let next = site.authority.server();
    fs::write(folder.join("server.pem"), &next.certificate).unwrap();
    assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Bad, "the key is still the old one");
    assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Bad);
    assert_eq!(site.figure("tls_reloads_total{result=\"bad\"}"), 1, "told once for one content");
    assert_eq!(site.figure("tls_reload_failing"), 1, "while they are refused");
    assert!(site.ask(&site.client(None)).await.is_err());
    assert_eq!(site.ask(&client).await.unwrap(), NAME);

    fs::write(folder.join("server.key"), &next.key).unwrap();
    assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Published);
    assert_eq!(site.figure("tls_reloads_total{result=\"ok\"}"), 1);
    assert_eq!(site.figure("tls_reload_failing"), 0, "they are good again");
    let trusted = fs::read(folder.join("client-ca.pem")).unwrap();
    assert_eq!(site.ask(&client).await.unwrap(), NAME);
    for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "nonsense"] {
        fs::write(folder.join("client-ca.pem"), broken).unwrap();
        assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Bad);
    }
    fs::remove_file(folder.join("client-ca.pem")).unwrap();
    assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Bad);
    assert_eq!(site.figure("tls_reloads_total{result=\"bad\"}"), 5);
    assert_eq!(site.figure("tls_reload_failing"), 1, "one set of files, however often it changed");
    let fresh = site.client(Some(&site.authority.client(NAME)));
    assert_eq!(site.ask(&fresh).await.unwrap(), NAME);
    fs::write(folder.join("client-ca.pem"), trusted).unwrap();
    assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Same, "the files in force are back");
    assert_eq!(site.figure("tls_reload_failing"), 0);
}

#[tokio::test]
async fn an_authority_is_replaced_by_way_of_both_and_the_old_one_is_refused_afterwards() {
    let site = Site::open().await;
    let bundle = site.folder.path().join("client-ca.pem");
    let (old, new) = (&site.authority, Authority::new("second"));
    let (of_old, of_new) = (old.client(NAME), new.client(NAME));

    let resuming = site.client(Some(&of_old));
    assert_eq!(site.ask(&resuming).await.unwrap(), NAME);
    fs::write(&bundle, old.pem() + &new.pem()).unwrap();
    assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Published);
    assert_eq!(site.ask(&site.client(Some(&of_old))).await.unwrap(), NAME);
    assert_eq!(site.ask(&site.client(Some(&of_new))).await.unwrap(), NAME);

    fs::write(&bundle, new.pem()).unwrap();
    assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Published);
    let again = site.client(Some(&of_old));
    assert!(site.ask(&again).await.is_err());
    site.until(|site| site.refusals(Refusal::UnknownCa) == 1).await;
    assert_eq!(site.ask(&site.client(Some(&of_new))).await.unwrap(), NAME);
}

/// A server that ends each connection with its answer, so that a client resumes its session at once.
async fn short_lived() -> Site {
    Site::open_with(Limits { tls_age: Duration::ZERO, ..Limits::default() }).await
}

#[tokio::test]
async fn a_session_is_resumed_but_not_beyond_a_change_of_authority() {
    let site = short_lived().await;
    let client = site.client(Some(&site.authority.client(NAME)));
    for _ in 0..3 {
        assert_eq!(site.ask(&client).await.unwrap(), NAME, "the name is known on a resumed connection too");
    }
    assert_eq!(site.figure("tls_handshakes_total{kind=\"full\"}"), 1);
    assert_eq!(site.figure("tls_handshakes_total{kind=\"resumed\"}"), 2);
    fs::write(site.folder.path().join("client-ca.pem"), Authority::new("another").pem()).unwrap();
    assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Published);
    assert!(site.ask(&client).await.is_err());
    site.until(|site| site.refusals(Refusal::UnknownCa) == 1).await;
    assert_eq!(site.figure("tls_handshakes_total{kind=\"resumed\"}"), 2);
}

/// A proxy between clients and the server. Returns its address, and how many bytes the server has sent on each
/// connection, in their order.
async fn overheard(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (between, said) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let kept = said.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let nth = kept.lock().unwrap().len();
            kept.lock().unwrap().push(0);
            let (mut asks, mut back) = client.into_split();
            let (mut answers, mut to) = TcpStream::connect(server).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut asks, &mut to).await });
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                while let Ok(bytes @ 1..) = answers.read(&mut piece).await {
                    kept.lock().unwrap()[nth] += bytes;
                    if back.write_all(&piece[..bytes]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (between, said)
}

/// Seconds by which the server's clock has been moved ahead.
static AHEAD_S: AtomicU64 = AtomicU64::new(0);

#[tokio::test]
async fn a_session_is_not_resumed_beyond_the_end_of_its_certificate_and_nothing_is_answered_then() {
    const HOUR_S: u64 = 3600;
    let now_ms = Clock::system().now_ms();
    let clock = Clock::with_elapsed(now_ms, || Duration::from_secs(AHEAD_S.load(SeqCst)));
    let site = Site::open_at(Limits { tls_age: Duration::ZERO, ..Limits::default() }, clock).await;
    let until_s = u64::try_from(now_ms / 1000).unwrap() + HOUR_S;
    let soon = site.authority.client_but(NAME, |params| {
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(until_s);
    });
    let client = site.client(Some(&soon));
    let (between, said) = overheard(site.address).await;
    for _ in 0..2 {
        assert_eq!(ask(&client, between).await.unwrap(), NAME);
    }
    AHEAD_S.store(2 * HOUR_S, SeqCst);
    let refused = ask(&client, between).await.unwrap_err();
    assert!(matches!(refused, Failure::NotSent(_)), "refused before a byte of the request left: {refused:?}");
    site.until(|site| site.refusals(Refusal::Expired) == 1).await;
    let handshakes = |kind: &str| site.figure(&format!("tls_handshakes_total{{kind=\"{kind}\"}}"));
    assert_eq!((handshakes("full"), handshakes("resumed")), (1, 1));
    // A client that receives data from the server may regard it as acceptance and send its request.
    let said = said.lock().unwrap().clone();
    let spoke: Vec<bool> = said.iter().map(|bytes| *bytes > 0).collect();
    assert_eq!(spoke, [true, true, false], "bytes of the server on each connection: {said:?}");
}

#[tokio::test]
async fn an_old_connection_ends_with_its_next_answer() {
    let site = Site::open_with(Limits { tls_age: Duration::ZERO, ..Limits::default() }).await;
    let client = site.client(Some(&site.authority.client(NAME)));
    let uri = format!("https://localhost:{}/who", site.address.port());
    let request = http::Request::get(uri).body(bytes::Bytes::new()).unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.headers()[http::header::CONNECTION], "close");
}

#[tokio::test]
async fn a_swap_of_the_mounted_folder_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let authority = Authority::new("mounted");
    for (version, pair) in [("..1", authority.server()), ("..2", authority.server())] {
        fs::create_dir(root.join(version)).unwrap();
        put(&root.join(version), "server", &pair);
        fs::write(root.join(version).join("client-ca.pem"), authority.pem()).unwrap();
    }
    symlink("..1", root.join("..data")).unwrap();
    for file in ["server.pem", "server.key", "client-ca.pem"] {
        symlink(format!("..data/{file}"), root.join(file)).unwrap();
    }
    let telemetry = Telemetry::new("shop", "1", "a");
    let metrics = TlsMetrics::new(&telemetry.metrics);
    let tls = ServerTls::open(server_files(root, NAME), Clock::system(), &metrics).unwrap();
    assert_eq!(tls.reload_if_changed(), ReloadOutcome::Same);
    symlink("..2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    assert_eq!(tls.reload_if_changed(), ReloadOutcome::Published);
}

#[tokio::test]
async fn every_mistake_in_the_files_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let files = server_files(folder.path(), NAME);
    assert_eq!(files.check(&Clock::system()).len(), 3, "none of the three files is there");
    let authority = Authority::new("a");
    put(folder.path(), "server", &authority.server());
    fs::write(folder.path().join("client-ca.pem"), authority.client(NAME).certificate).unwrap();
    let mistakes = files.check(&Clock::system());
    assert!(mistakes[0].what.contains("no certificate of an authority"), "{mistakes:?}");
    fs::write(folder.path().join("client-ca.pem"), authority.pem()).unwrap();
    assert!(files.check(&Clock::system()).is_empty());
    fs::write(folder.path().join("server.key"), authority.server().key).unwrap();
    let mistakes = files.check(&Clock::system());
    assert!(mistakes[0].what.contains("is not the key of the certificate"), "{mistakes:?}");
    let old = authority.client_but(NAME, crate::authority::expired);
    put(folder.path(), "server", &old);
    assert!(files.check(&Clock::system())[0].what.contains("expired on 2020-01-01"));
}

#[tokio::test]
async fn a_figure_tells_when_the_first_certificate_of_a_role_expires() {
    let site = Site::open().await;
    let expiry = |of: &str| site.figure(&format!("tls_certificate_expiry_seconds{{of=\"{of}\"}}"));
    let of_ca = expiry("client_ca");
    assert!(of_ca > 0);
    for (year, seconds) in [(2131, 5_080_665_600), (2130, 5_049_129_600)] {
        let until =
            |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(year, 1, 1);
        put(site.folder.path(), "server", &site.authority.client_but(NAME, until));
        assert_eq!(site.tls.reload_if_changed(), ReloadOutcome::Published);
        assert_eq!((expiry("server"), expiry("client_ca")), (seconds, of_ca));
    }
}
