//! Dependency directions between modules, lengths, first lines and forbidden words. `ARCHITECTURE.md` has the reasons.
//! Must not know any other rule.

use crate::tree::{File, file, files, has_word, none, root, rust};

/// Maximum lines of a file without its tests.
const LINES_MAX: usize = 500;

/// A module and the words that its code must not contain.
struct Rule {
    /// The beginning of the module's paths.
    prefix: &'static str,
    /// Exceptions among these paths.
    except: &'static [&'static str],
    /// Crates and modules that the module must not name.
    never: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        prefix: "crates/chassis/",
        except: &[
            "crates/chassis/tests/fuzz/",
            "crates/chassis/tests/postgres/",
            "crates/chassis/tests/tls/other_tls_stacks.rs",
            "crates/chassis/src/caller/jwt/tests.rs",
        ],
        never: &["billing::", "payments::", "tinjis::", "testkit::", "api::billing", "api::payments"],
        why: "chassis knows no service",
    },
    Rule {
        prefix: "crates/api/",
        except: &[],
        never: &["chassis::", "billing::", "payments::", "tinjis::", "testkit::", "axum", "http", "tokio"],
        why: "wire types know no program and no HTTP",
    },
    Rule {
        prefix: "crates/billing/src/",
        // This file contains only tests, which read the store's statements.
        except: &["crates/billing/src/store/list_plans.rs"],
        never: &["payments::", "tinjis::", "testkit::"],
        why: "a service depends on chassis and api only",
    },
    Rule {
        prefix: "crates/payments/src/",
        except: &[],
        never: &["billing::", "tinjis::", "testkit::"],
        why: "a service depends on chassis and api only",
    },
    Rule {
        prefix: "crates/pingpong/src/",
        except: &[],
        never: &["billing::", "payments::", "tinjis::", "testkit::"],
        why: "a service depends on chassis and api only",
    },
    Rule {
        prefix: "crates/chassis/src/tls/",
        except: &[],
        never: &["axum", "hyper", "http", "StatusCode", "crate::server"],
        why: "TLS knows no HTTP",
    },
    Rule {
        prefix: "crates/testkit/",
        except: &[],
        never: &["billing::", "payments::", "chassis::", "tinjis::"],
        why: "the test kit judges from outside and links no service",
    },
    Rule {
        prefix: "crates/billing/src/charge/",
        except: &[],
        never: &[
            "axum",
            "hyper",
            "http",
            "StatusCode",
            "rusqlite",
            "tokio_postgres",
            "sqlite",
            "crate::http",
        ],
        why: "the engine imports no HTTP and no SQL crate",
    },
    Rule {
        prefix: "crates/billing/src/protocol/",
        except: &[],
        never: &[
            "async",
            "tokio",
            "crate::store",
            "crate::provider",
            "crate::charge",
            "chassis",
            "rand",
            "SystemTime",
            "Instant",
        ],
        why: "the protocol is pure, so that the model can call it",
    },
    Rule {
        prefix: "crates/billing/src/provider/",
        except: &[],
        never: &["axum", "rusqlite", "crate::http", "crate::store", "crate::charge"],
        why: "the provider module knows neither the store nor our own routes",
    },
    Rule {
        prefix: "crates/billing/src/store/",
        except: &[],
        never: &["axum", "hyper", "crate::http", "crate::provider", "crate::config", "crate::charge"],
        why: "a store knows no wire and no engine",
    },
    Rule {
        prefix: "crates/billing/src/store/mod.rs",
        except: &[],
        never: &["rusqlite", "chassis::sqlite", "chassis::postgres"],
        why: "the store contract knows no SQL",
    },
    Rule {
        prefix: "crates/billing/src/store/changeset/",
        except: &[],
        never: &["async", "tokio", "chassis", "rusqlite", "tokio_postgres", "SystemTime", "Instant"],
        why: "a changeset is decided by pure functions, so that the model can call them",
    },
    Rule {
        prefix: "crates/billing/src/store/transaction.rs",
        except: &[],
        never: &["rusqlite", "chassis::sqlite", "chassis::postgres"],
        why: "the steps of a transaction know no database",
    },
    Rule {
        prefix: "crates/billing/src/http/",
        except: &[],
        never: &["rusqlite", "crate::store::sqlite", "crate::store::postgres"],
        why: "routes reach the store by its contract",
    },
    Rule {
        prefix: "crates/billing/src/",
        except: &["crates/billing/src/http/", "crates/billing/src/provider/"],
        never: &["StatusCode"],
        why: "HTTP meaning is assigned last, and only in http and provider",
    },
    Rule {
        prefix: "crates/billing/src/money.rs",
        except: &[],
        never: &[
            "f64",
            "f32",
            "crate",
            "tokio",
            "chassis::clock",
            "chassis::sqlite",
            "chassis::postgres",
            "chassis::server",
        ],
        why: "money is pure and has no float",
    },
    Rule {
        prefix: "crates/billing/src/invoice.rs",
        except: &[],
        never: &["f64", "f32", "chassis", "tokio", "crate::store", "crate::http", "crate::provider"],
        why: "invoices are plain data",
    },
    Rule {
        prefix: "crates/payments/src/ledger/",
        except: &[],
        never: &["axum", "hyper", "StatusCode", "crate::http"],
        why: "the ledger knows no wire",
    },
    Rule {
        prefix: "crates/reconcile/src/",
        except: &[],
        never: &[
            "tokio",
            "chassis",
            "billing::",
            "payments::",
            "tinjis::",
            "std::fs",
            "std::io",
            "std::net",
            "async",
        ],
        why: "reconcile compares streams: it reads nothing, and shares no code with what it verifies",
    },
    Rule {
        prefix: "crates/tinjis/src/verify/",
        except: &[],
        never: &["billing::", "payments::"],
        why: "verification must not believe the code that it verifies",
    },
    Rule {
        prefix: "crates/doctor/src/evaluate.rs",
        except: &[],
        never: &["tokio", "chassis", "serde_json", "std::fs", "async"],
        why: "the doctor evaluates observations in one pure function",
    },
    Rule {
        prefix: "crates/doctor/src/checks.rs",
        except: &[],
        never: &["tokio", "chassis", "std::fs", "async"],
        why: "checks are planned before the first one runs",
    },
    Rule {
        prefix: "crates/doctor/src/",
        except: &[],
        never: &["billing::", "payments::", "pingpong::", "tinjis::", "testkit::"],
        why: "the doctor tests from outside and knows no code of a service",
    },
    Rule {
        prefix: "crates/tinjis/src/",
        except: &["crates/tinjis/src/demo/", "crates/tinjis/src/main.rs"],
        never: &["naive::"],
        why: "the naive biller is the demo's counterexample and no mode of the product",
    },
];

#[test]
fn every_module_keeps_its_dependency_direction() {
    let mut findings = Vec::new();
    let files = rust();
    for rule in RULES {
        let prefix = files.iter().filter(|file| file.path.starts_with(rule.prefix));
        let prefix = prefix.filter(|file| !rule.except.iter().any(|except| file.path.starts_with(except)));
        for file in prefix {
            for (number, line) in file.code() {
                for word in rule.never.iter().filter(|word| names(line, word)) {
                    findings.push(format!("{}:{number}: `{word}`, but {}", file.path, rule.why));
                }
            }
        }
    }
    none("a module names what it must not know", &findings);
}

/// Whether the line names the crate, module or type. A word with a final `::` must be at the beginning of a path.
fn names(line: &str, word: &str) -> bool {
    match word.strip_suffix("::") {
        None => has_word(line, word),
        Some(name) => line.match_indices(word).any(|(at, _)| {
            !line[..at].ends_with("::") && has_word(&line[at..at + name.len()], name) && starts_name(line, at)
        }),
    }
}

fn starts_name(line: &str, at: usize) -> bool {
    !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

#[test]
fn every_rule_names_a_path_that_exists() {
    let files = rust();
    let empty = RULES.iter().filter(|rule| !files.iter().any(|file| file.path.starts_with(rule.prefix)));
    let empty: Vec<String> = empty.map(|rule| rule.prefix.to_owned()).collect();
    none("a rule names a path that does not exist", &empty);
}

#[test]
fn services_link_chassis_and_api_and_no_other_service() {
    let mut findings = Vec::new();
    for (service, others) in [
        (
            "api",
            &[
                "billing",
                "chassis",
                "doctor",
                "payments",
                "pingpong",
                "reconcile",
                "tinjis",
                "testkit",
                "model",
                "sim",
            ][..],
        ),
        (
            "chassis",
            &["billing", "doctor", "payments", "pingpong", "reconcile", "tinjis", "testkit", "model", "sim"],
        ),
        ("doctor", &["billing", "payments", "pingpong", "reconcile", "tinjis", "testkit", "model", "sim"]),
        (
            "reconcile",
            &["api", "billing", "payments", "pingpong", "chassis", "tinjis", "testkit", "model", "sim"],
        ),
        ("billing", &["payments", "pingpong", "reconcile", "tinjis", "testkit", "model", "sim"]),
        ("payments", &["billing", "pingpong", "reconcile", "tinjis", "testkit", "model", "sim"]),
        ("pingpong", &["billing", "payments", "tinjis", "testkit", "model", "sim"]),
        ("testkit", &["api", "billing", "payments", "pingpong", "chassis", "tinjis"]),
    ] {
        let manifest = file(&format!("crates/{service}/Cargo.toml"));
        // The tests of a service may start whole services from outside.
        let shipped = manifest.text.split("[dev-dependencies]").next().unwrap_or_default();
        for line in shipped.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if others.contains(&name) {
                findings.push(format!("{}: {line}", manifest.path));
            }
        }
    }
    none("a crate depends on one that it must not know", &findings);
}

#[test]
fn no_shipped_binary_links_the_test_kit_or_the_model() {
    let manifest = file("crates/tinjis/Cargo.toml");
    let shipped = manifest.text.split("[dev-dependencies]").next().unwrap_or_default();
    assert!(
        !["testkit", "model", "sim."].iter().any(|proof| shipped.contains(proof)),
        "these are for tests and proofs only"
    );
}

#[test]
fn every_file_is_within_its_length_limit() {
    // Test suites may be longer, because each case is read alone.
    let sources = rust().into_iter().filter(|file| !file.path.contains("/tests/"));
    let long = sources.map(|file| (file.lines().count(), file.path));
    let long: Vec<String> = long
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines without tests, at most {LINES_MAX}"))
        .collect();
    none("too long", &long);
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent = rust().into_iter().filter(|file| !file.text.starts_with("//! "));
    let silent: Vec<String> = silent.map(|file| file.path).collect();
    none("a file must open with //! and two to five lines: what it is for, what it must not know", &silent);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let deaf = files("crates", &["Cargo.toml"]);
    let deaf = deaf.into_iter().filter(|manifest| !manifest.text.contains("[lints]\nworkspace = true"));
    none("a crate without the workspace's lints", &deaf.map(|manifest| manifest.path).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_open_or_switched_off() {
    // Written in two parts, so that this file does not contain the words itself.
    let anywhere = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ign", "ore"),
        concat!("#[all", "ow("),
        concat!("#![all", "ow("),
    ];
    let mut findings = Vec::new();
    for file in rust() {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(word) = anywhere.iter().find(|word| line.contains(**word)) {
                findings.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    none("finish it, run it, or `expect` it with a reason", &findings);
}

#[test]
fn the_rules_can_fail() {
    let text = "//! A module.\nuse axum::Router;\nlet x = crate::billing::y(); // axum\n\n#[cfg(test)]\nmod tests { use rusqlite }";
    let file = File { path: "x.rs".to_owned(), text: text.to_owned() };
    let hits = |word| {
        file.code().filter(|(_, line)| names(line, word)).map(|(number, _)| number).collect::<Vec<_>>()
    };
    assert_eq!(hits("axum"), [2]);
    assert_eq!(hits("rusqlite"), Vec::<usize>::new(), "tests may");
    assert_eq!(hits("billing::"), Vec::<usize>::new(), "a module of that name is not the crate");
    assert!(names("use billing::x;", "billing::") && !names("use rebilling::x;", "billing::"));
    assert!(!names("https_only", "http") && names("http::Request", "http"));
    assert!(root().join("Cargo.toml").is_file());
}
