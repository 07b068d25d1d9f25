//! Sessions of a browser that has presented a static token once: a text with an end time and a code that only the token
//! can make. Sessions are not stored: each replica that has the token accepts them, and they end when the token leaves
//! its file. Must not know how the text is transported.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::Choice;

use super::Callers;
use super::tokens::Token;

/// Separates the uses of one key: the code of a session is valid for nothing else.
const PURPOSE: &[u8] = b"tinjis session 1\0";

impl Callers {
    /// Opens a session by this token until a time in seconds since the Unix epoch; `None` when the token is wrong.
    #[must_use]
    pub fn open_session(&self, token: &str, until_s: i64) -> Option<String> {
        let tokens = self.0.tokens.as_ref()?;
        let token = tokens.find(token)?;
        Some(format!("{until_s}.{}", hex(&code(&token, until_s).finalize().into_bytes())))
    }

    /// Whether a valid token opened the session, and the session has not ended. All tokens are checked, so that the time
    /// does not reveal which one matched.
    #[must_use]
    pub fn is_in_session(&self, session: &str, now_s: i64) -> bool {
        let Some(tokens) = &self.0.tokens else { return false };
        let Some((until, presented)) = session.split_once('.') else { return false };
        let (Ok(until_s), Some(presented)) = (until.parse::<i64>(), unhex(presented)) else { return false };
        let mut is_known = Choice::from(0);
        for token in tokens.current().iter() {
            is_known |= Choice::from(u8::from(code(token, until_s).verify_slice(&presented).is_ok()));
        }
        bool::from(is_known) && now_s < until_s
    }
}

fn code(token: &Token, until_s: i64) -> Hmac<Sha256> {
    let mut code = Hmac::<Sha256>::new_from_slice(token.secret.expose().as_bytes())
        .expect("a key of any length is one of HMAC");
    code.update(PURPOSE);
    code.update(&until_s.to_be_bytes());
    code
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Secret, TokenSource};

    fn callers(token: &str) -> Callers {
        Callers::by_token(Some(TokenSource::value(Secret::new(token))), None).unwrap()
    }

    #[test]
    fn a_session_is_opened_by_the_token_alone_and_ends() {
        let callers = callers("reader-1");
        assert_eq!(callers.open_session("reader-2", 100), None);
        let session = callers.open_session("reader-1", 100).unwrap();
        assert!(!session.contains("reader-1"), "{session}");
        assert!(callers.is_in_session(&session, 99));
        assert!(!callers.is_in_session(&session, 100), "it has ended");
        let (_, code) = session.split_once('.').unwrap();
        assert!(!callers.is_in_session(&format!("101.{code}"), 99), "the end is part of the code");
    }

    #[test]
    fn another_replica_with_the_token_accepts_a_session_and_one_without_does_not() {
        let session = callers("reader-1").open_session("reader-1", 100).unwrap();
        assert!(callers("reader-1").is_in_session(&session, 0));
        assert!(!callers("reader-2").is_in_session(&session, 0));
        assert!(!Callers::by_token(None, None).unwrap().is_in_session(&session, 0));
    }

    #[test]
    fn malformed_sessions_are_none() {
        let callers = callers("reader-1");
        let zeros = "0".repeat(64);
        for session in
            ["", ".", "100", "100.", "100.zz", &format!("x.{zeros}"), &format!("100.{zeros}é"), &zeros]
        {
            assert!(!callers.is_in_session(session, 0), "{session:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_leaves_its_file_takes_its_sessions_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        fs::write(&path, "old\nnew\n").unwrap();
        let callers = Callers::by_token(Some(TokenSource::file(path.clone())), None).unwrap();
        let (old, new) =
            (callers.open_session("old", 100).unwrap(), callers.open_session("new", 100).unwrap());
        assert!(callers.is_in_session(&old, 0) && callers.is_in_session(&new, 0));
        fs::write(&path, "new\n").unwrap();
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        assert!(!callers.is_in_session(&old, 0) && callers.is_in_session(&new, 0));
    }
}
