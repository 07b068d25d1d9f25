//! The naive biller (control group): reads, charges, marks as paid, and retries without a key after a lost response. A
//! process of the demo that is killed as ours are. It is no mode of the product, and must not be used by any part of
//! it.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use chassis::client::{Client, ClientConfig};
use http::Request;

/// How often one invoice is tried before the naive biller gives up.
const TRIES_MAX: usize = 100;

/// Charges each line of `invoices` (a request's body each) that is not a line of `paid`, until none is left.
pub(crate) async fn bill(
    invoices: &Path,
    paid: &Path,
    provider: &str,
    pki: Option<&Path>,
) -> anyhow::Result<u8> {
    let client = match pki {
        None => Client::new(ClientConfig::default()),
        Some(folder) => Client::with_connect(ClientConfig::default(), super::pki::connect(folder)?),
    };
    let mut marks = OpenOptions::new().create(true).append(true).open(paid)?;
    loop {
        let done = fs::read_to_string(paid)?;
        let done: HashSet<&str> = done.lines().collect();
        let all = fs::read_to_string(invoices)?;
        let open: Vec<&str> = all.lines().filter(|line| !done.contains(line)).collect();
        if open.is_empty() {
            return Ok(0);
        }
        for invoice in open {
            if charge(&client, provider, invoice).await? {
                writeln!(marks, "{invoice}")?;
            }
        }
    }
}

/// Charges an invoice, repeatedly until there is an answer; returns whether the provider charged it.
async fn charge(client: &Client, provider: &str, invoice: &str) -> anyhow::Result<bool> {
    for _ in 0..TRIES_MAX {
        let body = Bytes::from(invoice.to_owned());
        let request = Request::post(format!("{provider}/")).header("Content-Type", "application/json");
        if let Ok(answer) = client.send(request.body(body)?).await
            && answer.status().is_success()
        {
            return Ok(answer.body().as_ref() == br#"{"result":"true"}"#);
        }
    }
    anyhow::bail!("the provider gives no answer")
}
