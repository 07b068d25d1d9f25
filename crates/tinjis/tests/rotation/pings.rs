//! Proof: pings continue over mutual TLS while both sides' leaves and authorities are replaced, and none fails. A few
//! seconds here, a minute by `make prove-pings`. Knows the pair from outside only.

use std::time::{Duration, Instant};

use testkit::{size, wait_until};

use crate::TAKEN_WITHIN;
use crate::mount::Mount;
use crate::site::Pair;

#[test]
#[expect(clippy::disallowed_methods, reason = "a proof that lasts so long by the clock of the machine")]
fn no_ping_fails_while_the_certificates_of_both_sides_change() {
    let length = Duration::from_secs(u64::try_from(size("PING_SECONDS", 4)).expect("a short time"));
    let (mount, folder) = (Mount::new(), tempfile::tempdir().expect("a folder"));
    let pair = Pair::start(&mount, &folder);
    let start = Instant::now();
    let changes: [(&str, &dyn Fn()); 4] = [
        ("new leaves", &|| mount.new_leaves()),
        ("old and new authority", &|| mount.trust_both()),
        ("leaves of the new authority", &|| mount.new_leaves_of_new()),
        ("the new authority alone", &|| mount.trust_new()),
    ];
    for (nth, (what, change)) in (1..).zip(changes) {
        change();
        wait_until(&format!("both sides to take: {what}"), TAKEN_WITHIN, || pair.has_taken(i64::from(nth)));
        let until = length * nth / 4;
        let before = pair.pings();
        wait_until("pings to go on", length + TAKEN_WITHIN, || {
            start.elapsed() >= until && pair.pings() > before
        });
        println!("  {what:30} {:>6} pings", pair.pings());
    }
    let page = testkit::http::get(&format!("{}/metrics", pair.pinger.admin_url())).text();
    let figures = page.lines().filter(|line| line.starts_with("ping_requests_total{"));
    let bad = figures.filter(|line| !line.contains("\"success\"") && !line.ends_with(" 0"));
    assert_eq!(bad.collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(!pair.pinger.log().contains("Request failed"), "{}", pair.pinger.log());
    println!("  {} pings in {:?}, none failed", pair.pings(), start.elapsed());
}
