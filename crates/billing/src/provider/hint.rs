//! Advice to an operator for each answer that keeps a run from charging, in this one place. Knows no run and no
//! attempt.

use super::answer::Reason;

impl Reason {
    /// What to do about this answer, in one line, for a command line and for `/v1`.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::DeploymentUnknown => {
                "the payment service does not know this store under our account, so nothing is charged: if the store \
                 was restored or replaced, restore it whole; if it is a new billing that has charged none of these \
                 invoices, run `billing declare-deployment --why TEXT --actor NAME` and `tinjis pay` again"
            }
            Self::LedgerBehind => {
                "the ledger lacks rows that billing has seen, so nothing is charged: restore the ledger whole, or run \
                 `payments new-ledger-id`, read the runbook, and `tinjis resolve --accept-ledger LEDGER_ID --why \
                 TEXT --actor NAME`"
            }
            Self::LedgerMismatch | Self::OtherLedger | Self::NoLedger => {
                "another ledger answers than the one that billing settles with, so nothing is charged: check \
                 PAYMENT_PROVIDER_ENDPOINT, or after a restore run `tinjis resolve --accept-ledger LEDGER_ID --why \
                 TEXT --actor NAME`"
            }
            Self::Credentials => {
                "the provider rejected our credentials: check PAYMENTS_API_TOKEN (or --provider-cert and \
                 --provider-token-file); billing goes on probing"
            }
            Self::NoSuchRoute | Self::TextPage => {
                "something else than a payment provider answers: check PAYMENT_PROVIDER_ENDPOINT and proxies between"
            }
            Self::NoEcho => {
                "the provider does not echo Idempotency-Key: set PAYMENT_PROVIDER_IDEMPOTENCY=none or let the header \
                 pass, and start billing again"
            }
            Self::NotConnected => {
                "the provider cannot be reached: check PAYMENT_PROVIDER_ENDPOINT and that the provider runs"
            }
            Self::SendLate => {
                "billing stood still for longer than a request may take, and sent nothing: give it more CPU; billing goes \
                 on by itself"
            }
            Self::NoAnswer | Self::Unavailable | Self::MarkedNotExecuted => {
                "the provider is overloaded, failing or too slow: see its log; billing goes on by itself"
            }
            Self::NotVoided => {
                "an attempt that a network or a decline forbids could not be voided at the provider, so it is not \
                 sent: see the log of billing for the answer; billing asks again by itself"
            }
            Self::ReferenceCharged => {
                "the payment service has charged this reference under another key: look its row up, then `tinjis \
                 resolve` the attempt"
            }
            Self::KeyForeign => {
                "the key belongs to another account of the payment service: show the credentials of the account that \
                 charged it first"
            }
            Self::Validation => {
                "the provider calls the invoice invalid: see /v1/invoices?state=ATTENTION and correct its data"
            }
            Self::KeyReused | Self::OtherEcho | Self::OtherId | Self::Contradictory => {
                "the answers contradict what was sent: run `tinjis verify`, and look for a proxy that mixes up answers"
            }
            Self::Redirect | Self::OtherStatus | Self::Unreadable => {
                "the answers are none that billing knows: check PAYMENT_PROVIDER_ENDPOINT and proxies between"
            }
            Self::ResultTrue
            | Self::IdEchoed
            | Self::ResultFalse
            | Self::PaymentRefused
            | Self::KeyVoided
            | Self::KeyInFlight => "nothing is to be done",
        }
    }
}
