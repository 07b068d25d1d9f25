//! Attempts that end in the TLS handshake: each wrong certificate, and none. Knows no token.

use crate::presented::{Attempt, CLIENT, HOST, Signer, Wire};
use crate::site::ServerKind;
use crate::table::Table;

pub(crate) fn attempts(table: &mut Table<'_>) {
    let good = Attempt::bare().over_tls().certified(CLIENT);
    for at in [ServerKind::Mutual, ServerKind::Ponger, ServerKind::Billing] {
        let mut refused = |what: &str, reason: &str, change: &dyn Fn(&mut Attempt)| {
            table.pair(at, what, &good, &good.but(change), reason);
        };
        refused("no certificate", "no_certificate", &|a| a.certificate = None);
        refused("another authority", "unknown_ca", &|a| a.leaf().signer = Signer::Another);
        refused("signed by itself", "unknown_ca", &|a| a.leaf().signer = Signer::Itself);
        refused("expired", "expired", &|a| a.leaf().leaf.years = (2000, 2020));
        refused("not yet valid", "not_yet_valid", &|a| a.leaf().leaf.years = (2090, 2100));
        refused("a name that is not on the list", "wrong_name", &|a| {
            a.leaf().leaf.names = vec!["spiffe://cluster.local/ns/other/sa/antaeus".to_owned()];
        });
        refused("two names, both on the list", "several_names", &|a| {
            a.leaf().leaf.names.push(HOST.to_owned());
        });
        refused("no name", "wrong_name", &|a| a.leaf().leaf.names.clear());
        refused("for servers only", "wrong_usage", &|a| a.leaf().leaf.usages = (false, true));
        refused("HTTP to the TLS port", "plaintext", &|a| a.wire = Wire::Plain);
        refused("TLS 1.2", "other", &|a| a.wire = Wire::Tls12);
    }
    names(table);
}

/// Names that differ in one character are enough.
fn names(table: &mut Table<'_>) {
    let at = ServerKind::Mutual;
    let good = Attempt::bare().over_tls().certified(CLIENT);
    for (what, name) in [
        ("a longer path", format!("{CLIENT}/x")),
        ("a shorter path", CLIENT.trim_end_matches("/antaeus").to_owned()),
        ("another case in a path", CLIENT.replace("/sa/antaeus", "/sa/Antaeus")),
        ("another trust domain", CLIENT.replace("cluster.local", "cluster.example")),
        ("an address instead of a name", "ip:127.0.0.1".to_owned()),
        ("a mail address instead of a name", "antaeus@cluster.local".to_owned()),
    ] {
        let other = good.but(|a| a.leaf().leaf.names = vec![name]);
        table.pair(at, what, &good, &other, "wrong_name");
    }
    let host = Attempt::bare().over_tls().certified(HOST);
    for (what, name) in [
        ("a wildcard over the name", "*.antaeus.svc"),
        ("a host below the name", "a.billing.antaeus.svc"),
        ("a host that begins as the name", "billing.antaeus.svc.example.org"),
    ] {
        let other = host.but(|a| a.leaf().leaf.names = vec![name.to_owned()]);
        table.pair(at, what, &host, &other, "wrong_name");
    }
    let no_usage = good.but(|a| a.leaf().leaf.usages = (false, false));
    table.pair(at, "no usage at all", &good, &no_usage, "wrong_usage");
}
