//! Order: the journal's page with the key of a charge is written and flushed to the disk before the first byte of the
//! request leaves. The test reads system calls, so that a store that only claims durability is noticed. Knows the
//! services from outside only, and strace.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::postgres::{Database, Server};
use testkit::proof::Verified;
use testkit::requirements::has;
use testkit::wait::wait_until;
use testkit::{Proof, Services, size};

const WITHIN: Duration = Duration::from_secs(60);
/// More than PostgreSQL writes of its log at once (its buffers are 4 MiB), so that no key is truncated.
const TEXT_BYTES: &str = "4300000";
const CALLS: &str = "trace=write,pwrite64,pwritev,writev,sendto,sendmsg,fsync,fdatasync";

#[test]
fn the_journal_is_on_the_disk_before_a_charge_leaves() {
    if !has("strace", "the order on the disk") {
        return;
    }
    let services = Services::start(env!("CARGO_BIN_EXE_tinjis"));
    let is_log = |file: &str| file.ends_with("billing.db-wal");
    prove(Proof::of("durability order, SQLite"), services, Vec::new, is_log);
}

#[test]
fn the_servers_log_is_on_the_disk_before_a_charge_leaves_on_postgres() {
    if !has("strace", "the order on the disk") {
        return;
    }
    let what = "the order on PostgreSQL's disk";
    let Some(server) = Server::start(what) else { return };
    let server = Arc::new(server);
    let database = Database::of(&server);
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).database(database.url()).start();
    let writers = || family(server.pid().unsigned_abs());
    let is_log = |file: &str| file.contains("/pg_wal/");
    prove(Proof::of("durability order, PostgreSQL"), services, writers, is_log);
}

/// A process and its children: for PostgreSQL, the server and one process for each connection.
fn family(parent: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    [parent].into_iter().chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
}

/// Pays under strace, which also traces the processes that write billing's journal, and checks the order.
fn prove(
    proof: Proof,
    mut services: Services,
    writers: impl Fn() -> Vec<u32>,
    is_journal: impl Fn(&str) -> bool,
) {
    let invoices = size("ORDER_INVOICES", 40);
    services.import("D", invoices);
    let trace = services.dir().join("trace");
    let pids = [vec![services.billing.pid()], writers()].concat();
    let mut strace = attach(&pids, &trace);
    services.pay_until_true(WITHIN);
    let verified = Verified::of(env!("CARGO_BIN_EXE_tinjis"), &services, &[]);
    verified.assert_all_paid("under strace");
    services.stop_billing();
    kill_process(Pid::from_child(&strace), Signal::INT).expect("strace can be ended");
    strace.wait().expect("strace can be waited for");
    let trace = fs::read_to_string(trace).expect("a trace is text");
    let sent = check(&trace, is_journal).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(sent >= invoices, "{sent} charges were seen to leave, of {invoices}");
    proof.end(
        &format!("{sent} charges: written, flushed, then sent"),
        verified.number("double"),
        verified.number("lost"),
    );
}

/// Starts to trace these processes and their children; returns when the tracing is active.
fn attach(pids: &[u32], trace: &Path) -> Child {
    let said = trace.with_extension("said");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-s", TEXT_BYTES, "-e", CALLS, "-e", "signal=none", "-o"]).arg(trace);
    for pid in pids {
        command.args(["-p", &pid.to_string()]);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&said).expect("a file can be made"))
        .spawn()
        .expect("strace can be started");
    wait_until("strace to watch", WITHIN, || {
        let said = fs::read_to_string(&said).unwrap_or_default();
        let is_watched = |pid: &u32| said.contains(&format!("Process {pid} attached"));
        // A process of a short connection may have ended by now.
        pids.iter().all(|pid| is_watched(pid) || !Path::new(&format!("/proc/{pid}")).exists())
    });
    child
}

/// The progress of a key to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Journaled {
    Written,
    Flushed,
}

/// Checks a trace in its order; returns the number of charges that were sent, each after its key was flushed.
fn check(trace: &str, is_journal: impl Fn(&str) -> bool) -> Result<usize, String> {
    let mut keys: HashMap<String, Journaled> = HashMap::new();
    let mut pages: Vec<String> = Vec::new();
    // Calls in progress by process: the file that they flush, and how much was written when they began.
    let mut under_way: HashMap<&str, usize> = HashMap::new();
    let mut sent: Vec<String> = Vec::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(char::is_whitespace) else { continue };
        let call = call.trim_start();
        let name = call.split('(').next().unwrap_or_default();
        let file =
            call.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(file, _)| file);
        let flush = |pages: &[String], until: usize, keys: &mut HashMap<String, Journaled>| {
            for page in &pages[..until] {
                for key in keys_in(page) {
                    keys.insert(key, Journaled::Flushed);
                }
            }
        };
        match name {
            "write" | "pwrite64" | "pwritev" | "writev" if is_journal(file) => {
                for key in keys_in(call) {
                    keys.entry(key).or_insert(Journaled::Written);
                }
                pages.push(call.to_owned());
            }
            "fsync" | "fdatasync" if is_journal(file) => match call.contains("<unfinished") {
                true => {
                    under_way.insert(pid, pages.len());
                }
                false => flush(&pages, pages.len(), &mut keys),
            },
            _ if call.starts_with("<... fsync resumed") || call.starts_with("<... fdatasync resumed") => {
                if let Some(until) = under_way.remove(pid) {
                    flush(&pages, until, &mut keys);
                }
            }
            "write" | "writev" | "sendto" | "sendmsg" => {
                let Some(key) = sent_key(call) else { continue };
                match keys.get(&key) {
                    Some(Journaled::Flushed) => sent.push(key),
                    found => return Err(format!("the request of {key} left when its journal was {found:?}")),
                }
            }
            _ => {}
        }
    }
    sent.sort_unstable();
    sent.dedup();
    Ok(sent.len())
}

/// The key of a request that a call writes.
fn sent_key(call: &str) -> Option<String> {
    let lower = call.to_ascii_lowercase();
    if !lower.contains("\"post /") {
        return None;
    }
    let (_, rest) = lower.split_once("idempotency-key: ")?;
    rest.get(..KEY_DIGITS).map(ToOwned::to_owned)
}

const KEY_DIGITS: usize = 32;

/// Every run of 32 or more hex digits: a key may be directly next to another text.
fn keys_in(text: &str) -> Vec<String> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let bytes = text.as_bytes();
    let mut keys = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let length = bytes[start..].iter().take_while(|byte| is_hex(**byte)).count();
        for at in start..(start + length + 1).saturating_sub(KEY_DIGITS) {
            keys.push(text[at..at + KEY_DIGITS].to_owned());
        }
        start += length + 1;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "bca1897f57e947286a9d2dcb4be588f1";

    fn wal(file: &str) -> bool {
        file.ends_with("-wal")
    }

    fn lines(order: &[&str]) -> String {
        let line = |what: &&str| match *what {
            "write" => format!("7 pwrite64(14</b.db-wal>, \"\\0{KEY}\\1\", 4096, 24) = 4096\n"),
            "flush" => "7 fdatasync(14</b.db-wal>) = 0\n".to_owned(),
            "begin" => "7 fsync(14</b.db-wal> <unfinished ...>\n".to_owned(),
            "end" => "7 <... fsync resumed>) = 0\n".to_owned(),
            _ => format!(
                "8 sendto(20<socket:[1]>, \"POST / HTTP/1.1\\r\\nidempotency-key: {KEY}\\r\\n\", 99) = 99\n"
            ),
        };
        order.iter().map(line).collect()
    }

    #[test]
    fn a_charge_that_leaves_before_its_journal_is_flushed_is_caught() {
        assert_eq!(check(&lines(&["write", "flush", "send"]), wal), Ok(1));
        assert_eq!(check(&lines(&["write", "begin", "end", "send"]), wal), Ok(1));
        for order in [
            &["send"][..],
            &["write", "send"],
            &["write", "send", "flush"],
            &["flush", "write", "send"],
            &["begin", "write", "end", "send"],
            &["write", "begin", "send", "end"],
        ] {
            assert!(check(&lines(order), wal).is_err(), "{order:?}");
        }
    }
}
