//! Attempts by static tokens, by several proofs at once, and above the rate limit. Knows nothing inside a signed token.

use std::time::Duration;

use testkit::wait_until;

use crate::presented::{Attempt, CLIENT, Jwt, SHOP, SHOP_SUBJECT, Signer, Text};
use crate::site::ServerKind;
use crate::table::{Table, route};

/// A changed file is reloaded within this time.
const READ_WITHIN: Duration = Duration::from_secs(30);

fn word(token: &str) -> Vec<Text> {
    vec![Text::Word(token.to_owned())]
}

pub(crate) fn attempts(table: &mut Table<'_>) {
    let good = Attempt::bare().token("new-token");
    let second = Attempt::bare().token("old-token");
    let at = ServerKind::Plain;
    table.pair(at, "nothing", &good, &good.but(|a| a.tokens.clear()), "no_credential");
    for (what, token) in [
        ("an unknown token", "guess"),
        ("the beginning of a token", "new-toke"),
        ("more than a token", "new-tokenx"),
        ("another case", "New-Token"),
        ("no text", ""),
        ("two lines as one", "new-token old-token"),
        ("an account instead of its token", "corner-shop"),
    ] {
        table.pair(at, what, &good, &good.but(|a| a.tokens = word(token)), "token_unknown");
    }
    let wrong_line = second.but(|a| a.tokens = word("third-token"));
    table.pair(at, "the second line is one, a third is not", &second, &wrong_line, "token_unknown");
    let behind = good.but(|a| a.tokens.insert(0, Text::Word("wrong-token".to_owned())));
    table.pair(at, "of two tokens the first counts", &good, &behind, "token_unknown");
    removed(table);
    several(table);
    too_often(table);
}

/// A token that is removed from the file is refused soon after.
fn removed(table: &mut Table<'_>) {
    table.succeeds(
        ServerKind::Plain,
        route(ServerKind::Plain),
        "the old line",
        &Attempt::bare().token("old-token"),
    );
    table.site.write_tokens("new-token\nshop-token corner-shop\n");
    let url = table.site.server(ServerKind::Plain).url();
    let is_refused = || {
        let answer =
            testkit::http::call("GET", &format!("{url}/v1/ledger"), &[("X-Token", "old-token")], b"");
        answer.status == 403
    };
    wait_until("the shorter file to be read", READ_WITHIN, is_refused);
    let good = Attempt::bare().token("new-token");
    let old = good.but(|a| a.tokens = word("old-token"));
    table.pair(ServerKind::Plain, "a line that was taken out", &good, &old, "token_unknown");
}

/// Attempts with certificate, signed token and token: one of them, or all.
fn several(table: &mut Table<'_>) {
    let jwt = Jwt::of(table.site, "rsa");
    let all = Attempt::bare().over_tls().certified(CLIENT).signed(jwt.clone()).token("new-token");
    let mut refused = |what: &str, reason: &str, change: &dyn Fn(&mut Attempt)| {
        table.pair(ServerKind::All, what, &all, &all.but(change), reason);
    };
    refused("all, without certificate", "no_certificate", &|a| a.certificate = None);
    refused("all, without signed token", "jwt_missing", &|a| a.authorization.clear());
    refused("all, without token", "token_missing", &|a| a.tokens.clear());
    refused("all, with a wrong token", "token_unknown", &|a| a.tokens = word("guess"));
    refused("all, with a wrong audience", "jwt_audience", &|a| a.jwt().claims["aud"] = "others".into());
    refused("all, another account's certificate", "accounts_differ", &|a| {
        a.leaf().leaf.names = vec![SHOP.to_owned()];
    });
    refused("all, another account's subject", "accounts_differ", &|a| {
        a.jwt().claims["sub"] = SHOP_SUBJECT.into();
    });
    refused("all, another account's token", "accounts_differ", &|a| a.tokens = word("shop-token"));

    let certified = Attempt::bare().over_tls().certified(CLIENT);
    let by_token = Attempt::bare().over_tls().token("new-token");
    let by_jwt = Attempt::bare().over_tls().signed(jwt);
    let at = ServerKind::Any;
    table.pair(at, "any, nothing", &by_token, &by_token.but(|a| a.tokens.clear()), "no_credential");
    table.pair(
        at,
        "any, no certificate",
        &certified,
        &certified.but(|a| a.certificate = None),
        "no_credential",
    );
    let another = certified.but(|a| a.leaf().signer = Signer::Another);
    table.pair(at, "any, another authority's certificate", &certified, &another, "unknown_ca");
    let wrong = by_token.but(|a| a.tokens = word("guess"));
    table.pair(at, "any, a wrong token", &by_token, &wrong, "token_unknown");
    let wrong = by_jwt.but(|a| a.jwt().claims["iss"] = "https://elsewhere".into());
    table.pair(at, "any, another issuer", &by_jwt, &wrong, "jwt_issuer");
    let both = certified.clone().token("new-token");
    let theirs = both.but(|a| a.tokens = word("shop-token"));
    table.pair(at, "any, a certificate and another account's token", &both, &theirs, "accounts_differ");
}

/// With a limit of one request per second the second request at once is refused; a request of another account is not.
fn too_often(table: &mut Table<'_>) {
    let at = ServerKind::Rated;
    let shop = Attempt::bare().token("shop-token");
    let ours = shop.but(|a| a.tokens = word("new-token"));
    table.succeeds(at, route(at), "the first call", &ours);
    table.pair(at, "a second call within the second", &shop, &ours, "rate_limited");
}
