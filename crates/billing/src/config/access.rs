//! Access settings of billing: operators, readers, anonymous reads and the legacy routes. Text in, checked rules out.
//! Must not know any route.

use std::path::PathBuf;

use chassis::config::{Common, Problems, Setting, TokenSource, checked, parse_bool, parse_path, token_file};

use super::Command;
use crate::http::LegacyRoutes;

/// Flags and variables.
#[derive(Clone, Debug, clap::Args)]
pub struct AccessArgs {
    /// File with one token per line of operators, who alone write through /v1 of billing, declare deployments at payments
    /// and, off loopback, set /log-level; off loopback a token needs 16 bytes [default: off]
    #[arg(long, env = "OPERATOR_TOKEN_FILE", value_name = "FILE", help_heading = "Callers",
          value_parser = checked(parse_path))]
    operator_token_file: Setting<PathBuf>,
    /// File with one token per line of readers, who may read /v1 off loopback, as operators may; a token needs 16 bytes
    /// there [default: off]
    #[arg(long, env = "READER_TOKEN_FILE", value_name = "FILE", help_heading = "Callers",
          value_parser = checked(parse_path))]
    reader_token_file: Setting<PathBuf>,
    /// true lets every caller read /v1 off loopback
    #[arg(long, env = "ANONYMOUS_READS", value_name = "BOOL", help_heading = "Callers",
          num_args = 0..=1, default_missing_value = "true", default_value = "false",
          value_parser = checked(parse_bool))]
    anonymous_reads: Setting<bool>,
    /// Routes of the replaced systems, their health paths apart: open to every caller; token asks for an operator's token
    /// for writes and a reader's or operator's for reads; off answers 404
    #[arg(long, env = "LEGACY_ROUTES", value_name = "OPEN|TOKEN|OFF", help_heading = "Callers", default_value = "open",
          value_parser = checked(str::parse::<LegacyRoutes>))]
    legacy_routes: Setting<LegacyRoutes>,
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedAccess {
    /// Operator tokens, if any.
    pub operators: Option<TokenSource>,
    /// Reader tokens, if any.
    pub readers: Option<TokenSource>,
    /// Whether every caller may read `/v1`.
    pub anonymous_reads: bool,
    /// Who may call the legacy routes.
    pub legacy: LegacyRoutes,
}

impl AccessArgs {
    /// `None` when a setting is wrong, or cannot be checked because of another wrong setting.
    pub(super) fn resolve(
        &self,
        common: Option<&Common>,
        command: &Command,
        problems: &mut Problems,
    ) -> Option<CheckedAccess> {
        // Only a service accepts tokens. A one-shot command sends payments' operator token, which payments checks.
        let listener = common.filter(|_| *command == Command::Serve).map(|common| common.listen);
        let operators = token_file(&self.operator_token_file, listener, problems);
        let readers = token_file(&self.reader_token_file, listener, problems);
        let anonymous_reads = self.anonymous_reads.value(problems);
        let legacy = self.legacy_routes.value(problems);
        if legacy == Some(LegacyRoutes::Token) && !self.operator_token_file.is_given() {
            let operators = self.operator_token_file.name();
            let what =
                format!("is token, but without {operators} no caller could write; give a file, or off");
            problems.add(self.legacy_routes.name(), what);
        }
        Some(CheckedAccess { operators, readers, anonymous_reads: anonymous_reads?, legacy: legacy? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::resolve;
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (folder, path)
    }

    #[test]
    fn legacy_routes_are_open_and_v1_has_no_tokens_by_default() {
        let nothing = CheckedAccess {
            operators: None,
            readers: None,
            anonymous_reads: false,
            legacy: LegacyRoutes::Open,
        };
        assert_eq!(resolve(&[]).unwrap().access, nothing);
        let config = resolve(&["--legacy-routes", "off", "--anonymous-reads"]).unwrap();
        assert_eq!((config.access.legacy, config.access.anonymous_reads), (LegacyRoutes::Off, true));
    }

    #[test]
    fn legacy_routes_by_token_need_an_operator_token_file() {
        let mistakes = resolve(&["--legacy-routes", "token"]).unwrap_err();
        for setting in ["--legacy-routes (LEGACY_ROUTES)", "--operator-token-file (OPERATOR_TOKEN_FILE)"] {
            assert!(mistakes.contains(setting), "{mistakes}");
        }
        let (_folder, path) = file("operator-1\n");
        let config = resolve(&["--legacy-routes", "token", "--operator-token-file", &path]).unwrap();
        assert_eq!(config.access.legacy, LegacyRoutes::Token);
    }

    #[test]
    fn short_tokens_are_refused_off_loopback_where_they_are_accepted_and_never_where_they_are_sent() {
        let (_folder, path) = file("# operators of billing\n\noperator-1\n");
        for flag in ["--operator-token-file", "--reader-token-file"] {
            assert!(resolve(&[flag, &path]).is_ok());
            let mistakes = resolve(&[flag, &path, "--listen", "0.0.0.0:8000"]).unwrap_err();
            for part in [flag, "_TOKEN_FILE): ", &path, "line 3", "at least 16"] {
                assert!(mistakes.contains(part), "{part} in {mistakes}");
            }
            assert!(!mistakes.contains("operator-1"), "{mistakes}");
        }
        let declares = ["--listen", "0.0.0.0:8000", "--operator-token-file", &path, "declare-deployment"];
        let declares = [&declares[..], &["--why", "new", "--actor", "me"]].concat();
        assert!(resolve(&declares).is_ok());
        for flag in ["--payments-api-token-file", "--provider-token-file"] {
            assert!(resolve(&[flag, &path, "--listen", "0.0.0.0:8000"]).is_ok(), "{flag}");
        }
    }

    #[test]
    fn a_line_that_is_no_token_is_a_mistake_in_every_file() {
        let (_folder, path) = file("good-token-of-16-bytes\nthree words here\n");
        let flags = [
            "--operator-token-file",
            "--reader-token-file",
            "--payments-api-token-file",
            "--provider-token-file",
        ];
        for flag in flags {
            let mistakes = resolve(&[flag, &path]).unwrap_err();
            assert!(mistakes.contains("line 2: has 3 words") && mistakes.contains(flag), "{mistakes}");
        }
    }
}
