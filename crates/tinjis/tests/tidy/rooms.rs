//! Directions between rooms, lengths, first lines and words that are not to occur. `ARCHITECTURE.md` says why.

use crate::tree::{File, file, files, has_word, none, root, rust};

/// A file is at most this long, tests aside.
const LINES_MAX: usize = 500;

/// A room and the words that its code must not hold.
struct Rule {
    /// The room: paths that begin so.
    room: &'static str,
    /// But not these.
    except: &'static [&'static str],
    /// Crates and modules that it must not name.
    never: &'static [&'static str],
    /// What the room is, that it must not.
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        room: "crates/chassis/",
        except: &[
            "crates/chassis/tests/fuzz/",
            "crates/chassis/tests/postgres/",
            "crates/chassis/tests/tls/foreign.rs",
            "crates/chassis/src/caller/jwt/tests.rs",
        ],
        never: &["billing::", "payments::", "tinjis::", "harness::"],
        why: "chassis knows no service",
    },
    Rule {
        room: "crates/billing/src/",
        except: &[],
        never: &["payments::", "tinjis::", "harness::"],
        why: "a service depends on chassis only",
    },
    Rule {
        room: "crates/payments/src/",
        except: &[],
        never: &["billing::", "tinjis::", "harness::"],
        why: "a service depends on chassis only",
    },
    Rule {
        room: "crates/pingpong/src/",
        except: &[],
        never: &["billing::", "payments::", "tinjis::", "harness::"],
        why: "a service depends on chassis only",
    },
    Rule {
        room: "crates/chassis/src/tls/",
        except: &[],
        never: &["axum", "hyper", "http", "StatusCode", "crate::server"],
        why: "TLS knows no HTTP",
    },
    Rule {
        room: "crates/harness/",
        except: &[],
        never: &["billing::", "payments::", "chassis::", "tinjis::"],
        why: "the harness judges from outside and links no service",
    },
    Rule {
        room: "crates/billing/src/charge/",
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
        room: "crates/billing/src/protocol/",
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
        room: "crates/billing/src/provider/",
        except: &[],
        never: &["axum", "rusqlite", "crate::http", "crate::store", "crate::charge"],
        why: "the provider's room knows neither the store nor our own routes",
    },
    Rule {
        room: "crates/billing/src/store/",
        except: &[],
        never: &["axum", "hyper", "crate::http", "crate::provider", "crate::config", "crate::charge"],
        why: "a store knows no wire and no engine",
    },
    Rule {
        room: "crates/billing/src/store/mod.rs",
        except: &[],
        never: &["rusqlite", "chassis::sqlite", "chassis::postgres"],
        why: "the store contract knows no SQL",
    },
    Rule {
        room: "crates/billing/src/http/",
        except: &[],
        never: &["rusqlite", "crate::store::sqlite", "crate::store::postgres"],
        why: "routes reach the store by its contract",
    },
    Rule {
        room: "crates/billing/src/",
        except: &["crates/billing/src/http/", "crates/billing/src/provider/"],
        never: &["StatusCode"],
        why: "HTTP meaning is assigned last, and only in http and provider",
    },
    Rule {
        room: "crates/billing/src/money.rs",
        except: &[],
        never: &["f64", "f32", "crate", "chassis", "tokio"],
        why: "money is pure and has no float",
    },
    Rule {
        room: "crates/billing/src/invoice.rs",
        except: &[],
        never: &["f64", "f32", "chassis", "tokio", "crate::store", "crate::http", "crate::provider"],
        why: "invoices are plain data",
    },
    Rule {
        room: "crates/payments/src/ledger/",
        except: &[],
        never: &["axum", "hyper", "StatusCode", "crate::http"],
        why: "the ledger knows no wire",
    },
    Rule {
        room: "crates/reconcile/src/",
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
        room: "crates/tinjis/src/verify/",
        except: &[],
        never: &["billing::", "payments::"],
        why: "verification must not believe the code that it verifies",
    },
    Rule {
        room: "crates/doctor/src/evaluate.rs",
        except: &[],
        never: &["tokio", "chassis", "serde_json", "std::fs", "async"],
        why: "the doctor evaluates observations in one pure function",
    },
    Rule {
        room: "crates/doctor/src/checks.rs",
        except: &[],
        never: &["tokio", "chassis", "std::fs", "async"],
        why: "checks are planned before the first one runs",
    },
    Rule {
        room: "crates/doctor/src/",
        except: &[],
        never: &["billing::", "payments::", "pingpong::", "tinjis::", "harness::"],
        why: "the doctor tests from outside and knows no code of a service",
    },
    Rule {
        room: "crates/tinjis/src/",
        except: &["crates/tinjis/src/demo/", "crates/tinjis/src/main.rs"],
        never: &["naive::"],
        why: "the naive biller is the demo's counterexample and no mode of the product",
    },
];

#[test]
fn every_room_keeps_its_directions() {
    let mut findings = Vec::new();
    let files = rust();
    for rule in RULES {
        let room = files.iter().filter(|file| file.path.starts_with(rule.room));
        let room = room.filter(|file| !rule.except.iter().any(|except| file.path.starts_with(except)));
        for file in room {
            for (number, line) in file.code() {
                for word in rule.never.iter().filter(|word| names(line, word)) {
                    findings.push(format!("{}:{number}: `{word}`, but {}", file.path, rule.why));
                }
            }
        }
    }
    none("a room reaches where it must not", &findings);
}

/// Whether the line names the crate, module or type. A word that ends in `::` must begin a path, not stand in one.
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
fn every_rule_has_a_room_that_exists() {
    let files = rust();
    let empty = RULES.iter().filter(|rule| !files.iter().any(|file| file.path.starts_with(rule.room)));
    let empty: Vec<String> = empty.map(|rule| rule.room.to_owned()).collect();
    none("a rule is about a room that is not there", &empty);
}

#[test]
fn services_link_chassis_and_no_other_service() {
    let mut findings = Vec::new();
    for (service, others) in [
        (
            "chassis",
            &["billing", "doctor", "payments", "pingpong", "reconcile", "tinjis", "harness", "model", "sim"]
                [..],
        ),
        ("doctor", &["billing", "payments", "pingpong", "reconcile", "tinjis", "harness", "model", "sim"]),
        ("reconcile", &["billing", "payments", "pingpong", "chassis", "tinjis", "harness", "model", "sim"]),
        ("billing", &["payments", "pingpong", "reconcile", "tinjis", "harness", "model", "sim"]),
        ("payments", &["billing", "pingpong", "reconcile", "tinjis", "harness", "model", "sim"]),
        ("pingpong", &["billing", "payments", "tinjis", "harness", "model", "sim"]),
        ("harness", &["billing", "payments", "pingpong", "chassis", "tinjis"]),
    ] {
        let manifest = file(&format!("crates/{service}/Cargo.toml"));
        // Its tests may start whole services from outside.
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
fn no_shipped_binary_links_the_harness_or_the_model() {
    let manifest = file("crates/tinjis/Cargo.toml");
    let shipped = manifest.text.split("[dev-dependencies]").next().unwrap_or_default();
    assert!(
        !["harness", "model", "sim."].iter().any(|proof| shipped.contains(proof)),
        "these are for tests and proofs only"
    );
}

#[test]
fn every_file_is_at_most_as_long_as_one_can_hold_in_mind() {
    // Suites of cases may be longer: each case is read alone.
    let rooms = rust().into_iter().filter(|file| !file.path.contains("/tests/"));
    let long = rooms.map(|file| (file.lines().count(), file.path));
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
    // Written in two parts, so that this file does not hold them itself.
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
    let text = "//! A room.\nuse axum::Router;\nlet x = crate::billing::y(); // axum\n\n#[cfg(test)]\nmod tests { use rusqlite }";
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
