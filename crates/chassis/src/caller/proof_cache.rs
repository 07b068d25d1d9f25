//! Remembers tokens whose signature was verified recently, so that a busy caller does not cost a verification per call.
//! Keeps hashes, never a token; the validity in time is checked at each call. Knows no key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::jwt::Proven;

/// Maximum number of remembered tokens; beyond it all are forgotten and verified again.
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
    /// The result of this token's verification under exactly this key set.
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
