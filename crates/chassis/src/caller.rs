//! Who is calling: tokens from a variable or a live file, compared in constant time, mapped to accounts.
//! Must not know any route, header or status.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tokio::time::Instant;

use crate::config::{Secret, TokenSource};

/// Account of every token that names none, and of callers without a token where none is asked for.
pub const DEFAULT_ACCOUNT: &str = "antaeus";

/// How often a token file is looked at, at most.
const REREAD: Duration = Duration::from_secs(1);

/// Size of a token file and number of its tokens.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const TOKENS_MAX: usize = 256;

/// Whom a charge is booked for: several credentials, old and new, may stand for one account.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Account(String);

impl Account {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Account {
    fn default() -> Self {
        Self(DEFAULT_ACCOUNT.to_owned())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One line of a token file.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What is presented.
    pub secret: Secret,
    /// Whom it stands for.
    pub account: Account,
    digest: [u8; 32],
}

impl Token {
    fn new(text: &str, account: Account) -> Self {
        Self { secret: Secret::new(text), account, digest: digest(text) }
    }

    /// `token` or `token account`; nothing for a blank line.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let text = words.next()?;
        let account = words.next().map_or_else(Account::default, |name| Account(name.to_owned()));
        Some(Self::new(text, account))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Why a token source is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file could not be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, #[source] std::io::Error),
    /// Nothing but blank lines.
    #[error("{0} holds no token")]
    Empty(String),
    /// More than a token file may hold.
    #[error("{0} is too large: at most {TOKENS_MAX} tokens and {FILE_BYTES_MAX} bytes")]
    TooLarge(String),
}

/// The tokens that are valid now, in the order of the file. Clones share them.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Live>);

#[derive(Debug)]
struct Live {
    source: TokenSource,
    current: RwLock<Arc<[Token]>>,
    watch: Mutex<Watch>,
}

#[derive(Debug)]
struct Watch {
    looked: Instant,
    in_trouble: bool,
}

impl Tokens {
    /// Reads the source once and keeps an eye on it from then on.
    ///
    /// # Errors
    /// When the source cannot be read or holds no token.
    pub fn new(source: TokenSource) -> Result<Self, TokenError> {
        let current = RwLock::new(Self::read(&source)?.into());
        let watch = Mutex::new(Watch { looked: Instant::now(), in_trouble: false });
        Ok(Self(Arc::new(Live { source, current, watch })))
    }

    /// What the source holds at this moment.
    pub(crate) fn read(source: &TokenSource) -> Result<Vec<Token>, TokenError> {
        match source {
            // The variable of old is one token, spaces and all.
            TokenSource::Value(secret) if secret.expose().trim().is_empty() => {
                Err(TokenError::Empty("the value".into()))
            }
            TokenSource::Value(secret) => Ok(vec![Token::new(secret.expose(), Account::default())]),
            TokenSource::File(path) => read_file(path),
        }
    }

    /// The valid tokens; looks at the file when the last look is more than a second ago. The file is read whole,
    /// being small, so that a change never hides behind an unchanged time stamp.
    #[must_use]
    pub fn current(&self) -> Arc<[Token]> {
        if let TokenSource::File(path) = &self.0.source {
            // Whoever finds the lock taken goes on with what is known.
            if let Ok(mut watch) = self.0.watch.try_lock()
                && watch.looked.elapsed() >= REREAD
            {
                watch.looked = Instant::now();
                self.reread(path, &mut watch);
            }
        }
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn reread(&self, path: &Path, watch: &mut Watch) {
        match read_file(path) {
            Ok(tokens) => {
                let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
                if **current != *tokens {
                    tracing::info!(tokens = tokens.len(), "Token file has changed and was read again");
                    *current = tokens.into();
                }
                watch.in_trouble = false;
            }
            Err(error) => {
                if !watch.in_trouble {
                    tracing::error!(error = %error, "Token file is of no use; the tokens known before stay valid");
                }
                watch.in_trouble = true;
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<Token>, TokenError> {
    let name = path.display().to_string();
    let mut text = String::new();
    let read = open_regular(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    if let Err(error) = read {
        return Err(TokenError::Unreadable(name, error));
    }
    let tokens: Vec<Token> = text.lines().filter_map(Token::parse).collect();
    match tokens.len() {
        0 => Err(TokenError::Empty(name)),
        n if n > TOKENS_MAX || u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX => {
            Err(TokenError::TooLarge(name))
        }
        _ => Ok(tokens),
    }
}

/// A pipe or a device would block for ever.
fn open_regular(path: &Path) -> std::io::Result<std::fs::File> {
    if std::fs::metadata(path)?.is_file() {
        std::fs::File::open(path)
    } else {
        Err(std::io::Error::other("not a regular file"))
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Decides who a caller is. Clones share the tokens.
#[derive(Clone, Debug)]
pub struct Callers(Option<Tokens>);

impl Callers {
    /// Callers who must present one of these tokens.
    #[must_use]
    pub fn new(tokens: Option<Tokens>) -> Self {
        Self(tokens)
    }

    /// Reads the configured source; without one everybody passes.
    ///
    /// # Errors
    /// When the source cannot be read or holds no token.
    pub fn from_source(source: Option<TokenSource>) -> Result<Self, TokenError> {
        source.map(Tokens::new).transpose().map(Self)
    }

    /// The account of whoever presents this token; nothing when it is wrong or missing. Takes the same time
    /// whichever line matches and also when none does.
    #[must_use]
    pub fn authenticate(&self, presented: Option<&str>) -> Option<Account> {
        let Some(tokens) = &self.0 else { return Some(Account::default()) };
        let tokens = tokens.current();
        let presented = digest(presented.unwrap_or_default());
        let (mut found, mut at) = (Choice::from(0), 0_u64);
        for (index, token) in (0_u64..).zip(tokens.iter()) {
            let same = token.digest.ct_eq(&presented);
            at.conditional_assign(&index, same);
            found |= same;
        }
        let token = usize::try_from(at).ok().and_then(|at| tokens.get(at));
        token.filter(|_| bool::from(found)).map(|token| token.account.clone())
    }

    /// True when everybody passes because no token is configured.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(dir: &tempfile::TempDir, text: &str) -> TokenSource {
        let path = dir.path().join("tokens");
        fs::write(&path, text).unwrap();
        TokenSource::File(path)
    }

    fn name(account: Option<Account>) -> Option<String> {
        account.map(|account| account.to_string())
    }

    #[test]
    fn without_a_token_configured_everybody_is_antaeus() {
        let callers = Callers::from_source(None).unwrap();
        assert!(callers.is_open());
        for presented in [None, Some(""), Some("tokenunspecified")] {
            assert_eq!(name(callers.authenticate(presented)).as_deref(), Some("antaeus"));
        }
    }

    #[test]
    fn the_one_value_passes_and_nothing_else_does() {
        let callers = Callers::from_source(Some(TokenSource::Value(Secret::new("TestToken")))).unwrap();
        assert!(!callers.is_open());
        assert_eq!(name(callers.authenticate(Some("TestToken"))).as_deref(), Some("antaeus"));
        for presented in [None, Some(""), Some("testtoken"), Some("TestToken "), Some("TestToke")] {
            assert_eq!(callers.authenticate(presented), None, "{presented:?}");
        }
    }

    #[test]
    fn each_line_of_a_file_is_a_token_and_may_name_an_account() {
        let dir = tempfile::tempdir().unwrap();
        let callers = Callers::from_source(Some(file(&dir, "new\n\n  old  \r\nshop corner-shop\n"))).unwrap();
        let account = |token| name(callers.authenticate(Some(token)));
        assert_eq!(account("new").as_deref(), Some("antaeus"));
        assert_eq!(account("old").as_deref(), Some("antaeus"));
        assert_eq!(account("shop").as_deref(), Some("corner-shop"));
        assert_eq!(account(""), None);
        assert_eq!(account("corner-shop"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again_after_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let callers = Callers::from_source(Some(file(&dir, "old"))).unwrap();
        file(&dir, "new");
        assert!(callers.authenticate(Some("old")).is_some());
        tokio::time::advance(REREAD).await;
        assert!(callers.authenticate(Some("new")).is_some());
        assert!(callers.authenticate(Some("old")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_vanished_or_empty_file_keeps_the_old_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let callers = Callers::from_source(Some(file(&dir, "old"))).unwrap();
        file(&dir, " \n\n");
        tokio::time::advance(REREAD).await;
        assert!(callers.authenticate(Some("old")).is_some());
        fs::remove_file(dir.path().join("tokens")).unwrap();
        tokio::time::advance(REREAD).await;
        assert!(callers.authenticate(Some("old")).is_some());
        file(&dir, "new");
        tokio::time::advance(REREAD).await;
        assert!(callers.authenticate(Some("new")).is_some());
        assert!(callers.authenticate(Some("old")).is_none());
    }

    #[test]
    fn a_file_of_no_use_is_refused_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |source| Callers::from_source(Some(source)).unwrap_err().to_string();
        assert!(refusal(file(&dir, "\n")).ends_with("holds no token"));
        assert!(refusal(TokenSource::File(dir.path().join("none"))).contains("cannot be read"));
        assert!(refusal(TokenSource::File(dir.path().into())).contains("not a regular file"));
        assert!(refusal(file(&dir, &"t\n".repeat(TOKENS_MAX + 1))).contains("too large"));
    }

    #[test]
    fn no_debug_output_shows_a_token() {
        let callers = Callers::from_source(Some(TokenSource::Value(Secret::new("TestToken")))).unwrap();
        assert!(!format!("{callers:?}").contains("TestToken"));
    }
}
