//! Each rejection, counted by its reason, beside a positive control that differs in one property and is accepted.

use crate::authority::{Authority, Pair, dns, expired, of_the_future, uri};
use crate::site::{NAME, Site};
use chassis::client::Failure;
use chassis::clock::Clock;
use chassis::server::Limits;
use chassis::tls::Refusal;
use rcgen::ExtendedKeyUsagePurpose;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const IN_2019_MS: i64 = 1_550_000_000_000;
const IN_2101_MS: i64 = 4_150_000_000_000;

async fn accepted_name(site: &Site, pair: &Pair) -> String {
    site.ask(&site.client(Some(pair))).await.unwrap()
}

/// Checks that the call is refused before any byte of the request left, and counted.
async fn refused(site: &Site, shows: Option<&Pair>, why: Refusal) {
    // A client does not present a certificate that it considers expired itself.
    let clock = match why {
        Refusal::Expired => Clock::simulated(IN_2019_MS),
        Refusal::NotYetValid => Clock::simulated(IN_2101_MS),
        _ => Clock::system(),
    };
    let before = site.refusals(why);
    let failure = site.ask(&site.client_at(shows, clock)).await.unwrap_err();
    site.until(|site| site.refusals(why) == before + 1).await;
    if shows.is_some() {
        assert!(matches!(failure, Failure::NotSent(_)), "{why:?}: {failure:?}");
    }
}

#[tokio::test]
async fn every_wrong_certificate_is_refused_for_its_reason_and_its_twin_is_let_in() {
    let site = Site::open().await;
    let ca = &site.authority;
    assert_eq!(accepted_name(&site, &ca.client(NAME)).await, NAME);
    assert_eq!(accepted_name(&site, &ca.client("client.test")).await, "client.test");
    refused(&site, None, Refusal::NoCertificate).await;
    refused(&site, Some(&Authority::new("first").client(NAME)), Refusal::UnknownCa).await;
    refused(&site, Some(&ca.client_but(NAME, expired)), Refusal::Expired).await;
    refused(&site, Some(&ca.client_but(NAME, of_the_future)), Refusal::NotYetValid).await;
    refused(&site, Some(&ca.client("spiffe://cluster.local/ns/antaeus/sa/other")), Refusal::WrongName).await;
    refused(&site, Some(&ca.client("*.test")), Refusal::WrongName).await;
    for second in [dns("client.test"), uri(NAME), dns("other.test")] {
        let two = ca.client_but(NAME, |params| params.subject_alt_names.push(second));
        refused(&site, Some(&two), Refusal::SeveralNames).await;
    }
    refused(&site, Some(&ca.client_but(NAME, |params| params.subject_alt_names.clear())), Refusal::WrongName)
        .await;
    refused(
        &site,
        Some(&ca.client_but(NAME, |params| params.extended_key_usages.clear())),
        Refusal::WrongUsage,
    )
    .await;
    let serves = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    refused(&site, Some(&ca.client_but(NAME, serves)), Refusal::WrongUsage).await;
    assert_eq!(accepted_name(&site, &ca.client(NAME)).await, NAME);
}

#[tokio::test]
async fn plain_text_is_refused_and_counted() {
    let site = Site::open().await;
    let mut plain = TcpStream::connect(site.address).await.unwrap();
    plain.write_all(b"GET /who HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The end may come as a reset, since the sent bytes were not read.
    let _end = plain.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");
    site.until(|site| site.refusals(Refusal::Plaintext) == 1).await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_no_refusal() {
    let site = Site::open().await;
    drop(TcpStream::connect(site.address).await.unwrap());
    accepted_name(&site, &site.authority.client(NAME)).await;
    assert!(Refusal::ALL.iter().all(|why| site.refusals(*why) == 0));
}

/// The beginning of a ClientHello: a record of 512 bytes that never arrives completely.
const HALF_A_HELLO: [u8; 6] = [0x16, 3, 1, 2, 0, 1];

#[tokio::test]
async fn a_handshake_that_is_not_finished_ends_in_time() {
    let site = Site::open_with(Limits { handshake: Duration::from_millis(50), ..Limits::default() }).await;
    let mut half = TcpStream::connect(site.address).await.unwrap();
    half.write_all(&HALF_A_HELLO).await.unwrap();
    let _end = half.read_to_end(&mut Vec::new()).await;
    site.until(|site| site.refusals(Refusal::HandshakeTimeout) == 1).await;
}

#[tokio::test]
async fn a_thousand_half_handshakes_do_not_keep_others_out() {
    chassis::service::raise_open_files();
    let site = Site::open_with(Limits { handshakes_max: 500, ..Limits::default() }).await;
    let mut half = Vec::new();
    for _ in 0..1000 {
        let mut one = TcpStream::connect(site.address).await.unwrap();
        one.write_all(&HALF_A_HELLO).await.unwrap();
        half.push(one);
    }
    let client = site.client(Some(&site.authority.client(NAME)));
    let began = tokio::time::Instant::now();
    assert_eq!(site.ask(&client).await.unwrap(), NAME);
    assert!(began.elapsed() < Duration::from_secs(2), "others notice nothing: {:?}", began.elapsed());
    // The oldest handshakes were closed, long before their ten seconds were over.
    site.until(|site| site.refusals(Refusal::HandshakeTimeout) >= 500).await;
}

#[tokio::test]
async fn a_hello_in_pieces_of_one_byte_is_understood() {
    let site = Site::open().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (between, address) = (listener.local_addr().unwrap(), site.address);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(address).await.unwrap();
        server.set_nodelay(true).unwrap();
        let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        while let Ok(byte) = from.read_u8().await {
            to.write_u8(byte).await.unwrap();
        }
    });
    let client = site.client(Some(&site.authority.client(NAME)));
    assert_eq!(crate::site::ask(&client, between).await.unwrap(), NAME);
}
