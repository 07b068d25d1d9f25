//! Asks which ledger the provider has now, so that an operator accepts no ledger that does not exist. Charges nothing
//! and reads no store.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Method;

use super::client::{Client, describe, only};
use super::request::LEDGER_ID;

impl Client {
    /// The ledger that the provider names in its responses, also when it rejects the caller; `None` when it names none.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn named_ledger(&self) -> Result<Option<String>, String> {
        let Some(uri) = self.beside("/v1/ledger?limit=1") else {
            return Err("the endpoint is no URL".to_owned());
        };
        let mut request = self.post(uri, Bytes::new(), self.token.load(Ordering::Relaxed));
        *request.method_mut() = Method::GET;
        let response = self.http.send(request).await.map_err(|failure| describe(&failure))?;
        Ok(only(response.headers(), &LEDGER_ID).map(str::to_owned))
    }
}
