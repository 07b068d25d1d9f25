//! Proof: leaves, authorities (old, both, new), then tokens are replaced on all four services during requests without
//! retries, and no request fails. A broken file in between changes nothing but a metric; the old authority is refused
//! afterwards. Small here; `make prove-rotation` is the full size. Knows the services from outside only.
#![cfg(test)]

mod load;
mod mount;
mod pings;
mod site;
mod tokens;

use std::time::Duration;

use testkit::{size, wait_until};

use load::Load;
use mount::Mount;
use site::Site;
use tokens::Tokens;

/// Maximum time until a change is loaded, on any machine.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn certificates_authorities_and_tokens_change_under_load_and_no_request_fails() {
    let requests = size("ROTATION_REQUESTS", 2_000);
    let mount = Mount::new();
    let tokens = Tokens::new();
    let site = Site::start(&mount, &tokens);
    let load = Load::start(&mount, &site, tokens.old());
    load.until_another(requests / 8);
    let first_leaf = mount.server_leaf();
    assert!(load.is_trusted(&site, &first_leaf), "the leaf that is mounted is the one that is shown");

    let mut steps = 0;
    let mut change = |what: &str, how: &dyn Fn()| {
        how();
        steps += 1;
        wait_until(&format!("every service to take: {what}"), TAKEN_WITHIN, || site.has_taken(steps));
        load.until_another(requests / 8);
        println!("  {what:40} {:>8} requests, {} failed", load.done(), load.failed());
    };
    change("new leaves", &|| mount.new_leaves());
    assert!(!load.is_trusted(&site, &first_leaf) && load.is_trusted(&site, &mount.server_leaf()));
    change("old and new authority", &|| mount.trust_both());
    change("leaves of the new authority", &|| mount.new_leaves_of_new());
    change("the new authority alone", &|| mount.trust_new());
    change_tokens(&tokens, &site, &load, requests / 8);

    mount.break_leaf();
    wait_until("every server to refuse the broken file", TAKEN_WITHIN, || site.has_refused_a_file());
    load.until_another(requests / 8);
    println!("  {:40} {:>8} requests, {} failed", "a broken file", load.done(), load.failed());
    mount.mend_leaf();

    for url in site.urls() {
        assert!(!mount.is_accepted_by_old(&url), "{url} accepts a client of the old CA");
        assert!(mount.is_accepted(&url), "{url} accepts a client of the new CA");
    }
    load.until(requests);
    let (done, failures) = load.end();
    let (charges, sent_again) = site.charges();
    let pings = site.pings();
    println!("  {done} requests, {charges} charges, {pings} pings: {} failed", failures.len());
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(sent_again, 0, "charges that were sent more than once");
    assert!(charges > 0 && pings > 0 && done >= requests);
    assert_eq!(site.other_outcomes(), Vec::<String>::new());
}

/// Receivers first accept both tokens, then senders use the new one, then receivers accept only the new one.
fn change_tokens(tokens: &Tokens, site: &Site, load: &Load, requests: usize) {
    let step = |what: &str, read: (usize, usize)| {
        wait_until(&format!("services to read: {what}"), TAKEN_WITHIN, || site.token_files_read() == read);
        load.until_another(requests);
        println!("  {what:40} {:>8} requests, {} failed", load.done(), load.failed());
    };
    assert_eq!(load.status(site, &tokens.old()), 200);
    tokens.take_both();
    step("old and new token, old and new key", (1, 1));
    tokens.show_new();
    load.show(tokens.new_ones());
    step("the new token, signed by the new key", (1, 3));
    tokens.take_new();
    step("the new token alone", (2, 4));
    assert_eq!(site.refused(), 0, "callers that were refused");
    assert_eq!(load.status(site, &tokens.new_ones()), 200);
    assert_eq!(load.status(site, &tokens.old()), 403, "the old token is taken for ever");
}
