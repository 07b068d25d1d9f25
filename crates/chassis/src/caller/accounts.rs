//! Accounts and the credentials that map to them. Several credentials, old and new, may map to one account.
//! Must not know how a name was proven.

use std::collections::BTreeMap;
use std::fmt;

/// The account of every credential that names no account, and of callers without a credential where none is required.
pub const DEFAULT_ACCOUNT: &str = "antaeus";

/// Maximum number of names in one list.
const NAMES_MAX: usize = 256;

/// The account that a charge belongs to. Several credentials, old and new, may map to one account.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Account(String);

impl Account {
    pub(super) fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

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

/// Accepted names, each with its account.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Accounts(BTreeMap<String, Account>);

/// Why a list of names is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountsError {
    /// A name maps to two accounts.
    #[error("\"{0}\" stands there for two accounts")]
    Twice(String),
    /// No name at all.
    #[error("is empty: every client would be rejected")]
    Empty,
    /// More names than a list may hold.
    #[error("has more than {NAMES_MAX} names")]
    TooMany,
}

impl Accounts {
    /// Reads `NAME` or `NAME=ACCOUNT`, separated by commas or white space.
    ///
    /// # Errors
    /// When there is no name, too many names, or one that maps to two accounts.
    pub fn parse(text: &str) -> Result<Self, AccountsError> {
        let mut accounts = BTreeMap::new();
        for entry in text.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty()) {
            let (name, account) = split(entry);
            let before = accounts.insert(name.to_owned(), account.clone());
            if before.is_some_and(|before| before != account) {
                return Err(AccountsError::Twice(name.to_owned()));
            }
        }
        match accounts.len() {
            0 => Err(AccountsError::Empty),
            many if many > NAMES_MAX => Err(AccountsError::TooMany),
            _ => Ok(Self(accounts)),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same list with each name in its canonical spelling.
    #[must_use]
    pub fn spelled(self, spell: impl Fn(&str) -> Option<String>) -> Self {
        let spelled = self.0.into_iter().map(|(name, account)| (spell(&name).unwrap_or(name), account));
        Self(spelled.collect())
    }

    /// The account of exactly this name; `None` when the list does not have it.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Account> {
        self.0.get(name)
    }
}

/// Splits `NAME=ACCOUNT`. A URI may contain `=` itself: the text after the last `=` is an account only if it is one
/// word.
fn split(entry: &str) -> (&str, Account) {
    let is_word =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    match entry.rsplit_once('=') {
        Some((name, account)) if !name.is_empty() && is_word(account) => (name, Account::named(account)),
        _ => (entry, Account::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_the_account_behind_it_or_for_antaeus() {
        let list = "system:serviceaccount:a:b, spiffe://c/ns/shop/sa/shop=corner-shop\nspiffe://c/?a=b/c";
        let accounts = Accounts::parse(list).unwrap();
        let of = |name| accounts.of(name).map(Account::as_str);
        assert_eq!(of("system:serviceaccount:a:b"), Some("antaeus"));
        assert_eq!(of("spiffe://c/ns/shop/sa/shop"), Some("corner-shop"));
        assert_eq!(of("spiffe://c/?a=b/c"), Some("antaeus"));
        assert_eq!(of("system:serviceaccount:a"), None);
        assert_eq!(accounts.names().count(), 3);
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_a_mistake() {
        assert_eq!(Accounts::parse("a=x,a=y"), Err(AccountsError::Twice("a".to_owned())));
        assert!(Accounts::parse("a=x,a=x").is_ok());
        assert_eq!(Accounts::parse(" , "), Err(AccountsError::Empty));
        let many: Vec<String> = (0..=NAMES_MAX).map(|number| format!("n{number}")).collect();
        assert_eq!(Accounts::parse(&many.join(",")), Err(AccountsError::TooMany));
    }
}
