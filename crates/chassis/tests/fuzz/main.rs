//! Nearly right PEM files in place of certificates, keys and CA bundles, and nearly right files of tokens: no panic,
//! and invalid input is reported. Runs for a moment here, `make fuzz` is the full size.
#![cfg(test)]

use std::fs;

use chassis::caller::Tokens;
use chassis::clock::Clock;
use chassis::config::TokenSource;
use chassis::tls::{ClientFiles, ClientRules, SanAllowList, ServerFiles, Source};
use testkit::certs::{Authority, Leaf};
use testkit::fuzz::{Corpus, quick_folder};

#[test]
fn fuzz_pem_files() {
    let (folder, clock) = (quick_folder(), Clock::system());
    let authority = Authority::new("of the test");
    let pair = authority.server("localhost");
    let path = |file: &str| folder.path().join(file);
    let source = |file: &str| Source { setting: "the test".into(), path: path(file) };
    fs::write(path("ca"), authority.pem()).unwrap();
    fs::write(path("cert"), &pair.certificate).unwrap();
    fs::write(path("key"), &pair.key).unwrap();
    let server = |certificate: &str, key: &str, ca: &str| ServerFiles {
        certificate: source(certificate),
        key: source(key),
        clients: Some(ClientRules {
            ca: source(ca),
            allowed: SanAllowList::OfAuthority,
            is_required: true,
            must_name_usage: true,
        }),
    };
    assert!(server("cert", "key", "ca").check(&clock).is_empty());
    let entries = [
        authority.pem(),
        pair.certificate.clone() + &authority.pem(),
        pair.key.clone(),
        authority.leaf(&Leaf::client("spiffe://test/client")).certificate,
    ];
    Corpus::of("PEM files", entries.map(String::into_bytes).to_vec()).run(|input| {
        fs::write(path("some"), input).unwrap();
        let mistakes = server("some", "some", "some").check(&clock);
        assert!(!mistakes.is_empty(), "no file is certificate, key and authority in one");
        let client = ClientFiles {
            trusted: Some(source("some")),
            system_too: false,
            identity: Some((source("some"), source("key"))),
        };
        let _mistakes = client.check(&clock);
    });
}

#[test]
fn fuzz_files_of_tokens() {
    let folder = quick_folder();
    let file = folder.path().join("tokens");
    let entries = vec![b"new\nold\r\n\nshop corner-shop\n".to_vec(), b"one".to_vec()];
    Corpus::of("files of tokens", entries).run(|input| {
        fs::write(&file, input).unwrap();
        if let Ok(tokens) = Tokens::new(TokenSource::file(file.clone())) {
            assert!(tokens.account("").is_none(), "nothing is a token");
            let first = tokens.current()[0].clone();
            assert_eq!(tokens.account(first.secret.expose()).as_ref(), Some(&first.account));
        }
    });
}
