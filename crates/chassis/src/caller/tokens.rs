//! Static tokens from a variable or a live file, compared in constant time, each standing for an account.
//! Must not know how a token is transported, nor which other proofs exist.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tokio::time::Instant;

use super::Account;
use super::token_file::{self, Faults};
use crate::config::{Secret, TokenOrigin, TokenSource, read_regular_text};

/// Minimum time between two checks of a token file.
const REREAD: Duration = Duration::from_secs(1);

/// Maximum size of a token file, and maximum number of its tokens.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const TOKENS_MAX: usize = 256;

/// One line of a token file.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The text that a caller presents.
    pub secret: Secret,
    /// The account that the token maps to.
    pub account: Account,
    digest: [u8; 32],
}

impl Token {
    pub(super) fn new(text: &str, account: Account) -> Self {
        Self { secret: Secret::new(text), account, digest: digest(text) }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Why a token source is invalid.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file could not be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, #[source] std::io::Error),
    /// The source has only blank lines and comments.
    #[error("{0} holds no token")]
    Empty(String),
    /// Lines that are neither a token nor a comment.
    #[error("{0}, {1}")]
    Lines(String, Faults),
    /// More bytes or tokens than a token file may hold.
    #[error("{0} is too large: at most {TOKENS_MAX} tokens and {FILE_BYTES_MAX} bytes")]
    TooLarge(String),
    /// One token maps to two accounts; the account must not depend on the order of lines.
    #[error("{0} has one token for two accounts, {1} and {2}")]
    TwoAccounts(String, Account, Account),
}

/// The tokens that are valid now, in the order of the file. Clones share them.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<LoadedTokens>);

#[derive(Debug)]
struct LoadedTokens {
    source: TokenSource,
    current: RwLock<Arc<[Token]>>,
    watch: Mutex<TokenFileWatch>,
}

#[derive(Debug)]
struct TokenFileWatch {
    looked: Instant,
    in_trouble: bool,
}

impl Tokens {
    /// Reads the source once. A file is read again later, when its tokens are used.
    ///
    /// # Errors
    /// When the source cannot be read or holds no token.
    pub fn new(source: TokenSource) -> Result<Self, TokenError> {
        if let TokenOrigin::Value(secret) = &source.origin
            && secret.expose().len() < source.bytes_min
        {
            // Only a warning: environments of the replaced systems set a short token by its variable.
            tracing::warn!(
                bytes = secret.expose().len(),
                bytes_min = source.bytes_min,
                "a token given as a variable is short and others can reach this port: use a token file"
            );
        }
        let current = RwLock::new(Self::read(&source)?.into());
        let watch = Mutex::new(TokenFileWatch { looked: Instant::now(), in_trouble: false });
        Ok(Self(Arc::new(LoadedTokens { source, current, watch })))
    }

    /// The current tokens.
    pub(crate) fn read(source: &TokenSource) -> Result<Vec<Token>, TokenError> {
        match &source.origin {
            // The legacy variable is one token, spaces included.
            TokenOrigin::Value(secret) if secret.expose().trim().is_empty() => {
                Err(TokenError::Empty("the value".into()))
            }
            TokenOrigin::Value(secret) => Ok(vec![Token::new(secret.expose(), Account::default())]),
            TokenOrigin::File(path) => read_file(path, source.bytes_min),
        }
    }

    /// The valid tokens. Reads the file again when the last check is more than a second ago: the whole file, since it
    /// is small, so that a change never hides behind an unchanged time stamp.
    #[must_use]
    pub fn current(&self) -> Arc<[Token]> {
        if let TokenOrigin::File(path) = &self.0.source.origin {
            // A task that finds the lock taken uses the loaded tokens.
            if let Ok(mut watch) = self.0.watch.try_lock()
                && watch.looked.elapsed() >= REREAD
            {
                watch.looked = Instant::now();
                self.reread(path, &mut watch);
            }
        }
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The account of this token; `None` when the token is wrong. Takes the same time whichever line matches, and when
    /// none matches.
    #[must_use]
    pub fn account(&self, presented: &str) -> Option<Account> {
        self.find(presented).map(|token| token.account)
    }

    /// The whole line of this token, found as by [`Self::account`].
    pub(super) fn find(&self, presented: &str) -> Option<Token> {
        let tokens = self.current();
        let presented = digest(presented);
        let (mut found, mut at) = (Choice::from(0), 0_u64);
        for (index, token) in (0_u64..).zip(tokens.iter()) {
            let same = token.digest.ct_eq(&presented);
            at.conditional_assign(&index, same);
            found |= same;
        }
        let token = usize::try_from(at).ok().and_then(|at| tokens.get(at));
        token.filter(|_| bool::from(found)).cloned()
    }

    fn reread(&self, path: &Path, watch: &mut TokenFileWatch) {
        match read_file(path, self.0.source.bytes_min) {
            Ok(tokens) => {
                let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
                if **current != *tokens {
                    tracing::info!(tokens = tokens.len(), "reloaded the token file");
                    *current = tokens.into();
                }
                watch.in_trouble = false;
            }
            Err(error) => {
                if !watch.in_trouble {
                    tracing::error!(error = %error, "reloading the token file failed, the previous tokens stay valid");
                }
                watch.in_trouble = true;
            }
        }
    }
}

fn read_file(path: &Path, bytes_min: usize) -> Result<Vec<Token>, TokenError> {
    let name = path.display().to_string();
    let text = match read_regular_text(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::FileTooLarge => return Err(TokenError::TooLarge(name)),
        Err(error) => return Err(TokenError::Unreadable(name, error)),
    };
    let tokens = match token_file::parse(&text, bytes_min) {
        Ok(tokens) => tokens,
        Err(faults) => return Err(TokenError::Lines(name, faults)),
    };
    match tokens.len() {
        0 => Err(TokenError::Empty(name)),
        n if n > TOKENS_MAX => Err(TokenError::TooLarge(name)),
        _ => match find_shared_token(&tokens) {
            Some((one, other)) => Err(TokenError::TwoAccounts(name, one, other)),
            None => Ok(tokens),
        },
    }
}

/// Two accounts of a token that maps to more than one.
fn find_shared_token(tokens: &[Token]) -> Option<(Account, Account)> {
    let mut accounts = HashMap::new();
    tokens.iter().find_map(|token| {
        let known = accounts.insert(token.digest, &token.account)?;
        (*known != token.account).then(|| (known.clone(), token.account.clone()))
    })
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(dir: &tempfile::TempDir, text: &str) -> TokenSource {
        let path = dir.path().join("tokens");
        fs::write(&path, text).unwrap();
        TokenSource::file(path)
    }

    fn name(tokens: &Tokens, presented: &str) -> Option<String> {
        tokens.account(presented).map(|account| account.to_string())
    }

    #[test]
    fn the_one_value_passes_and_nothing_else_does() {
        let tokens = Tokens::new(TokenSource::value(Secret::new("TestToken"))).unwrap();
        assert_eq!(name(&tokens, "TestToken").as_deref(), Some("antaeus"));
        for presented in ["", "testtoken", "TestToken ", "TestToke"] {
            assert_eq!(name(&tokens, presented), None, "{presented:?}");
        }
    }

    #[test]
    fn each_line_of_a_file_is_a_token_and_may_name_an_account() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::new(file(&dir, "new\n\n  old  \r\nshop corner-shop\n")).unwrap();
        assert_eq!(name(&tokens, "new").as_deref(), Some("antaeus"));
        assert_eq!(name(&tokens, "old").as_deref(), Some("antaeus"));
        assert_eq!(name(&tokens, "shop").as_deref(), Some("corner-shop"));
        assert_eq!(name(&tokens, ""), None);
        assert_eq!(name(&tokens, "corner-shop"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_token_is_refused_in_a_file_that_others_can_present_also_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let anywhere = "0.0.0.0:9000".parse().unwrap();
        let refused =
            Tokens::new(file(&dir, "# old\nshort\n").accepted_on(anywhere)).unwrap_err().to_string();
        assert!(
            refused.ends_with(
                "tokens, line 2: the token has 5 bytes; at least 16 are needed when --listen is not loopback"
            ),
            "{refused}"
        );
        Tokens::new(file(&dir, "short").accepted_on("127.0.0.1:9000".parse().unwrap())).unwrap();
        Tokens::new(TokenSource::value(Secret::new("TestToken")).accepted_on(anywhere)).unwrap();

        let tokens = Tokens::new(file(&dir, "sixteen-bytes-16").accepted_on(anywhere)).unwrap();
        file(&dir, "short");
        tokio::time::advance(REREAD).await;
        assert!(tokens.account("short").is_none() && tokens.account("sixteen-bytes-16").is_some());
    }

    #[test]
    fn a_token_of_two_accounts_is_refused_and_a_repeated_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Tokens::new(file(&dir, "shop one\nother\nshop two\n")).unwrap_err().to_string();
        assert!(refused.ends_with("one token for two accounts, one and two"), "{refused}");
        assert_eq!(
            name(&Tokens::new(file(&dir, "shop\nshop\n")).unwrap(), "shop").as_deref(),
            Some("antaeus")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again_after_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::new(file(&dir, "old")).unwrap();
        file(&dir, "new");
        assert!(tokens.account("old").is_some());
        tokio::time::advance(REREAD).await;
        assert!(tokens.account("new").is_some());
        assert!(tokens.account("old").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_vanished_or_empty_file_keeps_the_old_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::new(file(&dir, "old")).unwrap();
        file(&dir, " \n\n");
        tokio::time::advance(REREAD).await;
        assert!(tokens.account("old").is_some());
        fs::remove_file(dir.path().join("tokens")).unwrap();
        tokio::time::advance(REREAD).await;
        assert!(tokens.account("old").is_some());
        file(&dir, "new");
        tokio::time::advance(REREAD).await;
        assert!(tokens.account("new").is_some());
        assert!(tokens.account("old").is_none());
    }

    #[test]
    fn a_file_of_no_use_is_refused_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |source| Tokens::new(source).unwrap_err().to_string();
        assert!(refusal(file(&dir, "\n")).ends_with("holds no token"));
        assert!(refusal(TokenSource::file(dir.path().join("none"))).contains("cannot be read"));
        assert!(refusal(TokenSource::file(dir.path())).contains("not a regular file"));
        assert!(refusal(file(&dir, &"t\n".repeat(TOKENS_MAX + 1))).contains("too large"));
    }

    #[test]
    fn no_debug_output_shows_a_token() {
        let tokens = Tokens::new(TokenSource::value(Secret::new("TestToken"))).unwrap();
        assert!(!format!("{tokens:?} {:?}", tokens.current()).contains("TestToken"));
    }
}
