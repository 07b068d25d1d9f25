//! `tinjis simulate` as users run it: months of both real services on a virtual clock end right despite kills, on
//! either database, and a provider that forgets keys is noticed. Knows the command line only.

use std::process::{Command, Output};

use serde_json::Value;
use testkit::{Database, Proof, size};

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");

/// Fields of the last object, besides those of a month.
const TOTALS: [&str; 4] = ["seconds", "sending_seconds", "kills", "verdict"];
/// Memory of the largest service process, and of the command itself.
const MEMORY: [&str; 2] = ["memory_peak_kib", "command_memory_peak_kib"];
const FIGURES: [&str; 12] = [
    "month",
    "due",
    "invoiced",
    "paid",
    "soft",
    "hard",
    "overdue",
    "resent",
    "double",
    "lost",
    "early",
    "over_limit",
];
const WRONG: [&str; 4] = ["double", "lost", "early", "over_limit"];
/// Maximum memory of each process at each size; `make simulate` sets the size.
const MEMORY_KIB_MAX: u64 = 96 * 1024;

fn simulate(flags: &[String]) -> Output {
    let mut command = Command::new(TINJIS);
    command.args(["simulate", "--json"]).args(flags).env_clear();
    command.output().expect("the command can be started")
}

/// The object of each month, then the totals.
fn objects(output: &Output) -> Vec<Value> {
    let said = String::from_utf8_lossy(&output.stdout);
    said.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[track_caller]
fn assert_right(output: &Output, months: usize) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let objects = objects(output);
    assert_eq!(objects.len(), months + 1, "{objects:?}");
    for object in &objects {
        let wrong = WRONG.map(|name| object[name].as_u64());
        assert_eq!((wrong, &object["due"]), ([Some(0); 4], &object["invoiced"]), "{object}");
        assert!(FIGURES.iter().all(|name| !object[name].is_null()), "{object}");
    }
    let totals = &objects[months];
    assert!(TOTALS.iter().all(|name| !totals[name].is_null()) && totals["verdict"] == "ok", "{totals}");
    for name in MEMORY {
        assert!(
            totals[name].as_u64().is_some_and(|kib| (1..MEMORY_KIB_MAX).contains(&kib)),
            "{name}: {totals}"
        );
    }
    objects
}

#[test]
fn months_with_kills_declines_and_downtime_end_right() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let plot = folder.path().join("months.svg");
    let (subscriptions, months) = (size("SIMULATE_SUBSCRIPTIONS", 300), size("SIMULATE_MONTHS", 2));
    let proof = Proof::of("months, SQLite");
    let output = simulate(&[
        format!("--subscriptions={subscriptions}"),
        format!("--months={months}"),
        "--kills=3".to_owned(),
        format!("--plot={}", plot.display()),
    ]);
    let objects = assert_right(&output, months);
    let totals = &objects[months];
    assert_eq!(totals["kills"], 3);
    let seen = ["paid", "soft", "hard", "overdue", "resent"].map(|name| totals[name].as_u64() > Some(0));
    assert_eq!(seen, [true; 5], "each of it happens: {totals}");
    let picture = std::fs::read_to_string(&plot).expect("the picture was drawn");
    assert!(picture.starts_with("<svg") && picture.contains("2028-01"), "{picture}");
    let [declines, resent] = ["soft", "resent"].map(|name| &totals[name]);
    let how_many = format!(
        "{months} months of {subscriptions} subscriptions, 3 kills, {declines} soft declines, {resent} sent again"
    );
    proof.end(&how_many, 0, 0);
}

/// The fields of a month that depend neither on the machine's speed nor on the moment of a kill: all but `resent`.
fn repeatable(month: &Value) -> Value {
    let mut month = month.clone();
    month.as_object_mut().expect("a month is an object").remove("resent");
    month
}

#[test]
fn a_seed_repeats_the_figures_of_its_months_also_through_kills() {
    let months = |seed: u64, kills: u64| -> Vec<Value> {
        let flags = ["--subscriptions=200", "--months=2"].map(str::to_owned);
        let output =
            simulate(&[&flags[..], &[format!("--seed={seed}"), format!("--kills={kills}")]].concat());
        assert_right(&output, 2)[..2].iter().map(repeatable).collect()
    };
    let first = months(5, 0);
    assert_eq!(months(5, 4), first);
    assert_ne!(months(6, 0), first, "another seed declines others");
}

#[test]
fn two_replicas_on_postgresql_end_right_when_one_is_killed() {
    let Some(database) = Database::fresh("a simulation on PostgreSQL") else { return };
    let proof = Proof::of("months, PostgreSQL");
    let output = simulate(&[
        "--subscriptions=200".to_owned(),
        "--months=1".to_owned(),
        "--kills=2".to_owned(),
        format!("--database-url={}", database.url()),
    ]);
    assert_right(&output, 1);
    proof.end("1 month of 200 subscriptions, two replicas, 2 kills", 0, 0);
}

#[test]
fn a_provider_that_forgets_keys_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let script = folder.path().join("faults.toml");
    // The order matters: a tenth of the keys lose their first answer, and each resend meets a provider that has
    // forgotten its key. So it never depends on a race whether an invoice is charged twice.
    let rules =
        "[[rule]]\nfault = \"reply-lost\"\nshare = 0.1\n[[rule]]\nfault = \"forget-key\"\ntimes = 1000\n";
    std::fs::write(&script, rules).expect("a script can be written");
    let output = simulate(&[
        "--subscriptions=200".to_owned(),
        "--months=1".to_owned(),
        format!("--faults={}", script.display()),
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let totals = objects(&output).pop().expect("there are totals");
    assert_eq!(totals["verdict"], "wrong", "{totals}");
    assert!(totals["double"].as_u64() > Some(0), "{totals}");
}
