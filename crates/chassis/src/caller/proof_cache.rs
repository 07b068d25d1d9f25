//! Tokens whose signature was verified a moment ago, so that each call of a busy caller does not cost one again. Keeps
//! hashes, never a token; whatever may change is looked at each time. Knows no key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::jwt::Proven;

/// Tokens that are remembered; when there are more, all are forgotten and verified again.
const TOKENS_MAX: usize = 1024;

/// A token by its hash.
pub(super) type Hash = [u8; 32];

/// Verified tokens of one JWKS.
#[derive(Debug, Default)]
pub(super) struct ProofCache(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    generation: u64,
    proven: HashMap<Hash, Proven>,
}

pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

impl ProofCache {
    /// What this token proved under this very set of keys.
    pub(super) fn find(&self, token: &Hash, generation: u64) -> Option<Proven> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.proven.get(token).filter(|_| seen.generation == generation).cloned()
    }

    pub(super) fn remember(&self, token: Hash, proven: Proven, generation: u64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.generation != generation || seen.proven.len() >= TOKENS_MAX {
            seen.proven.clear();
            seen.generation = generation;
        }
        seen.proven.insert(token, proven);
    }
}
