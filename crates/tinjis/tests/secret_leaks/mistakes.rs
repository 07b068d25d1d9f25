//! Messages about wrong settings, and `--help` with secrets in the environment.

use std::process::{Command, Output};

use crate::Canaries;

fn run(words: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tinjis"))
        .args(words)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the program can be run")
}

#[test]
fn neither_help_nor_mistakes_show_a_secret() {
    let mut canaries = Canaries::default();
    let (token, password) = (canaries.plant("a token"), canaries.plant("a password"));
    let url = format!("postgres://biller:{password}@127.0.0.1:1/billing");
    let bad_url = format!("mysql://biller:{password}@127.0.0.1/billing");
    let endpoint = format!("http://biller:{password}@payments:9000");
    let keys = format!("https://payments:{password}@keys/");
    let mut found = Vec::new();
    for service in ["billing", "payments"] {
        let secrets = [("PAYMENTS_API_TOKEN", token.as_str()), ("DATABASE_URL", &url)];
        let attempts: [(&[&str], i32); 7] = [
            (&["--help"], 0),
            (&["--version"], 0),
            (&["--listen", "nowhere"], 64),
            (&["--payments-api-token-file", "/nowhere"], 64),
            (&["--payments-api-token", &token, "--payments-api-token", &token], 64),
            (&["--database-url", &bad_url, "--no-such-flag"], 64),
            (&["--database-ca", "/nowhere", "--log-level", "loud"], 64),
        ];
        for (words, code) in attempts {
            let words = [&["run", service], words].concat();
            let output = run(&words, &secrets);
            assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
            let place = words[1..3].join(" ");
            found.extend(canaries.found_in(&place, &output.stdout));
            found.extend(canaries.found_in(&place, &output.stderr));
        }
    }
    for (words, code) in [
        (vec!["run", "billing", "--payment-provider-endpoint", &endpoint], 64),
        (vec!["run", "payments", "--jwt-audience", "p", "--jwt-subjects", "s", "--jwt-jwks-url", &keys], 64),
        (vec!["run", "payments", "--database-url", &url, "migrate"], 1),
    ] {
        let output = run(&words, &[]);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        found.extend(canaries.found_in(words[2], &output.stdout));
        found.extend(canaries.found_in(words[2], &output.stderr));
    }
    assert_eq!(found, Vec::<String>::new());
}
