//! `tinjis demo` as a new user runs it: succeeds, repeats its figures for the same seed, and fails when the provider
//! forgets keys. Knows the command line only.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use testkit::wait::{wait_for, wait_until};

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");

/// Few enough invoices for a build without optimisation, and enough for the naive biller to charge a customer twice.
const FEW: &str = "--invoices=200";

fn demo(flags: &[&str]) -> Output {
    demo_in(tempfile::tempdir().expect("a folder can be made").path(), flags)
}

/// Runs the demo in this folder, where it also writes its picture.
fn demo_in(folder: &Path, flags: &[&str]) -> Output {
    Command::new(TINJIS)
        .arg("demo")
        .args(flags)
        .env_clear()
        .current_dir(folder)
        .output()
        .expect("the demo can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it says text")
}

/// The lines of the result that follow from the seed.
fn fixed(output: &Output) -> Vec<String> {
    text(&output.stdout).lines().filter(|line| line.contains("double")).map(str::to_owned).collect()
}

/// The number after a word.
fn figure(line: &str, word: &str) -> u64 {
    let after = line.split(word).nth(1).unwrap_or_else(|| panic!("{word} in {line}"));
    let number = after.split_whitespace().next().unwrap_or_default().replace(',', "");
    number.parse().unwrap_or_else(|_| panic!("no number after {word} in {line}"))
}

#[test]
fn the_demo_passes_and_a_seed_fixes_its_figures() {
    let (first, again) = std::thread::scope(|scope| {
        let again = scope.spawn(|| demo(&["--seed=8213", FEW]));
        (demo(&["--seed=8213", FEW]), again.join().unwrap())
    });
    for output in [&first, &again] {
        assert_eq!(output.status.code(), Some(0), "{}\n{}", text(&output.stdout), text(&output.stderr));
        let said = text(&output.stdout);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 11, "{said}");
        assert!(lines[0].starts_with("10 invoices, pay once") && lines[0].contains("2 → "), "{said}");
        assert_eq!(lines[1], "200 invoices, 3 kills by SIGKILL, 5 % of answers lost");
        assert!(figure(lines[2], "double ") > 0 && figure(lines[2], "lost ") == 0, "{said}");
        let ours = ["double ", "lost ", "in doubt "].map(|word| figure(lines[3], word));
        assert_eq!(ours, [0, 0, 0], "{said}");
        assert!(lines[3].ends_with("verified: 200 invoices against the ledger"), "{said}");
        assert!(lines[4].starts_with("54 subscriptions, January to March 2025: "), "{said}");
        let months =
            [5, 6, 7].map(|at| ["invoiced ", "charged ", "declined "].map(|word| figure(lines[at], word)));
        assert_eq!(months.map(|[invoiced, ..]| invoiced), [54, 53, 54], "one is paused in February: {said}");
        for [invoiced, charged, declined] in months {
            assert!(charged > 0 && declined > 0 && charged + declined == invoiced, "{said}");
        }
        let ours = ["double ", "lost ", "in doubt "].map(|word| figure(lines[8], word));
        assert_eq!(ours, [0, 0, 0], "{said}");
        assert!(lines[8].ends_with("verified: 161 invoices against the ledger"), "{said}");
        assert!(lines[9].ends_with(" tinjis-demo.svg"), "{said}");
        assert_eq!(lines[10], "seed 8213; again: tinjis demo --seed 8213 --invoices 200");
    }
    assert_eq!(fixed(&first), fixed(&again));
}

#[test]
fn the_readme_shows_what_its_seed_prints() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo_in(folder.path(), &["--seed=8213"]);
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(readme).expect("README.md is there");
    let said = text(&output.stdout);
    assert!(readme.contains(said.trim_end()), "README.md should show:\n{said}");
    let picture = std::fs::read_to_string(folder.path().join("tinjis-demo.svg")).unwrap();
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/explanation/images/quarter.svg");
    let kept = std::fs::read_to_string(kept).expect("make demo-picture writes it");
    assert_eq!(kept, picture, "make demo-picture writes docs/explanation/images/quarter.svg");
}

/// The texts of a picture that is well-formed XML: each element is closed, each attribute quoted, each `&` escaped.
#[track_caller]
fn texts(svg: &str) -> Vec<String> {
    let (mut open, mut texts) = (Vec::new(), Vec::new());
    for part in svg.strip_prefix('<').expect("an element comes first").split('<') {
        let (tag, after) = part.split_once('>').expect("a tag ends");
        assert!(!after.contains('>'), "{part}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        assert!(["svg", "rect", "text", "path"].contains(&name), "{part}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{part}");
        } else {
            let attributes = tag.trim_end_matches('/').strip_prefix(name).unwrap_or_default();
            for (at, piece) in attributes.split('"').enumerate() {
                let is_name = piece.is_empty() || (piece.starts_with(' ') && piece.ends_with('='));
                assert!(at % 2 == 1 || is_name, "{part}");
            }
            assert_eq!(attributes.matches('"').count() % 2, 0, "{part}");
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        for reference in part.split('&').skip(1) {
            assert!(
                ["amp;", "lt;", "gt;", "quot;"].iter().any(|known| reference.starts_with(known)),
                "{part}"
            );
        }
        match open.last() {
            Some(&"text") => texts.push(after.to_owned()),
            _ => assert_eq!(after.trim(), "", "{part}"),
        }
    }
    assert_eq!(open, [""; 0], "each element is closed");
    texts
}

/// Counts of a month, as `/v1` shows them: invoiced, charged and declined.
fn month(items: &[serde_json::Value], month: &str) -> Vec<String> {
    let of_month = |item: &&serde_json::Value| {
        item["reference"].as_str().is_some_and(|reference| reference.contains(&format!("@{month}-")))
    };
    let of_month: Vec<&serde_json::Value> = items.iter().filter(of_month).collect();
    let count = |state: &str| of_month.iter().filter(|item| item["state"] == state).count();
    [of_month.len(), count("PAID"), count("PENDING")].map(|count| count.to_string()).to_vec()
}

#[test]
fn a_provider_that_forgets_keys_makes_the_demo_fail() {
    let output = demo(&["--seed=8213", FEW, "--forget-key"]);
    assert_eq!(output.status.code(), Some(1), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let lines = fixed(&output);
    assert!(figure(&lines[1], "double ") > 0, "{lines:?}");
    assert!(lines[1].contains("WRONG"), "{lines:?}");
}

#[test]
fn over_mutual_tls_it_says_the_same_and_certificates_change_in_mid_run() {
    let output = demo(&["--seed=8213", FEW, "--mtls", "--keep"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", text(&output.stderr));
    assert!(said.contains("lost, mutual TLS, certificates changed in mid-run"), "{said}");
    assert!(fixed(&output)[1].ends_with("verified: 200 invoices against the ledger"), "{said}");
    assert_eq!(fixed(&output), fixed(&demo(&["--seed=8213", FEW])));
    let verify = |words: &str| {
        Command::new(TINJIS).arg("verify").args(words.split_whitespace()).env_clear().output().unwrap()
    };
    let kept = said.lines().find_map(|line| line.strip_prefix("  tinjis verify ")).unwrap();
    assert_eq!(verify(kept).status.code(), Some(0), "the line that it prints works: {kept}");
    let without = kept.split_once("--billing").unwrap().1;
    let refused = verify(&format!("--billing {without}"));
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("--ca: is missing"), "{}", text(&refused.stderr));
    let end = said.lines().find_map(|line| line.strip_prefix("to end them: kill ")).unwrap();
    let (ids, remove) = end.split_once("; rm -r ").unwrap();
    assert!(Command::new("kill").args(ids.split_whitespace()).status().unwrap().success());
    std::fs::remove_dir_all(remove).unwrap();
}

#[test]
fn without_kills_answers_are_lost_all_the_same() {
    let output = demo(&["--seed=1", FEW, "--no-kill"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("200 invoices, 5 % of answers lost"));
    assert!(text(&output.stdout).contains("tinjis demo --seed 1 --invoices 200 --no-kill"));
}

#[test]
fn what_is_kept_runs_on_until_it_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo_in(folder.path(), &["--seed=2", FEW, "--no-kill", "--keep", "--plot=a <quarter>.svg"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", text(&output.stderr));
    let billing = said.lines().find(|line| line.starts_with("billing ")).unwrap();
    let url = billing.split_whitespace().nth(1).unwrap();
    assert_eq!(testkit::http::get(&format!("{url}/rest/health")).text(), "\"ok\"");
    let quarter = said.lines().find_map(|line| line.strip_prefix("the quarter: billing ")).unwrap();
    let quarter = quarter.split(',').next().unwrap();
    let page = testkit::http::get(&format!("{quarter}/v1/invoices?limit=1000")).text();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let drawn = texts(&std::fs::read_to_string(folder.path().join("a <quarter>.svg")).unwrap());
    let of_bars = &drawn[drawn.len() - 12..];
    for (bars, (number, name)) in
        of_bars.chunks(4).zip([("01", "January"), ("02", "February"), ("03", "March")])
    {
        assert_eq!(bars[3], format!("{name} 2025"));
        assert_eq!(bars[..3], month(page["items"].as_array().unwrap(), &format!("2025-{number}")));
    }
    let end = said.lines().find_map(|line| line.strip_prefix("to end them: kill ")).unwrap();
    let (ids, remove) = end.split_once("; rm -r ").unwrap();
    assert!(Command::new("kill").args(ids.split_whitespace()).status().unwrap().success());
    wait_until("billing to be gone", Duration::from_secs(60), || {
        testkit::http::try_call("GET", &format!("{url}/rest/health"), &[], b"").is_err()
    });
    std::fs::remove_dir_all(remove).unwrap();
}

/// Runs the demo with its own folder for temporary files; `sh` runs this script, with the demo's command as `$@`.
fn demo_by(script: &str, temporary: &std::path::Path) -> std::process::Child {
    Command::new("/bin/sh")
        .args(["-c", script, "sh", TINJIS, "demo", FEW])
        .env_clear()
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell can be started")
}

#[test]
fn a_demo_that_fails_says_in_which_step_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    // Files are limited to 4 KiB, so that no store can be created.
    let output = demo_by("ulimit -f 8; exec \"$@\"", temporary.path()).wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("in the step \"pay once\": payments ended by itself"), "{said}");
    assert!(said.contains("--- the end of "), "{said}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn each_signal_that_ends_the_demo_ends_its_processes_too() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = demo_by("exec \"$@\"", temporary.path());
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let ids = wait_for("the demo to have processes", Duration::from_secs(60), || {
            let ids = std::fs::read_to_string(&children).unwrap_or_default();
            (!ids.is_empty()).then_some(ids)
        });
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let status = wait_for("the demo to end", Duration::from_secs(60), || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(2), "{signal}");
        for id in ids.split_whitespace() {
            assert!(
                !std::path::Path::new(&format!("/proc/{id}")).exists(),
                "process {id} runs on after {signal}"
            );
        }
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_command_that_is_missing_or_unknown_is_reported_without_naming_hidden_ones() {
    for words in [&[][..], &["naive-bille"], &["ru"]] {
        let output = Command::new(TINJIS).args(words).env_clear().output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(!said.contains("naive-biller"), "{said}");
    }
}

#[test]
fn wrong_flags_are_all_reported_with_exit_code_64() {
    let output = demo(&["--seed=many", "--invoices=1", "--nokill"]);
    assert_eq!(output.status.code(), Some(64));
    for part in ["--seed", "--invoices", "--nokill"] {
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}
