//! One older system as its clients see it: the services at `BILLING_URL` and `PAYMENTS_URL`, or services started here.
//! A test that needs fresh or special data always starts its own. Knows settings and wire formats only.

use std::path::Path;

use testkit::services::given_url;
use testkit::{Answer, Builder, Services, http};

/// Addresses of a billing and a payment service, with the processes that were started here.
pub(crate) struct Site {
    billing: String,
    payments: String,
    services: Option<Services>,
}

/// The two services of this build, not yet started.
pub(crate) fn own() -> Builder {
    Services::of(Path::new(env!("CARGO_BIN_EXE_tinjis")))
}

impl Site {
    /// The site that the variables name, else a site started here.
    pub(crate) fn given_or(builder: Builder) -> Self {
        match (given_url("BILLING_URL"), given_url("PAYMENTS_URL")) {
            (None, None) => Self::of(builder),
            (billing, payments) => Self {
                billing: billing.unwrap_or_default(),
                payments: payments.unwrap_or_default(),
                services: None,
            },
        }
    }

    /// A site started here.
    pub(crate) fn of(builder: Builder) -> Self {
        let services = builder.start();
        Self { billing: services.billing_url(), payments: services.payments_url(), services: Some(services) }
    }

    /// The Antaeus environment: its demo data, keys on, a provider that refuses about half.
    pub(crate) fn antaeus() -> Self {
        Self::given_or(antaeus())
    }

    /// The invoice-app environment: its demo data, a provider that refuses nothing.
    pub(crate) fn invoice_app() -> Self {
        Self::given_or(invoice_app())
    }

    /// Billing's URL.
    pub(crate) fn billing(&self) -> &str {
        &self.billing
    }

    /// Whether only this test calls it.
    pub(crate) fn is_own(&self) -> bool {
        self.services.is_some()
    }

    /// Our own processes; only sites that were started here have them.
    pub(crate) fn services(&self) -> &Services {
        self.services.as_ref().expect("this site was started here")
    }

    /// Ends billing and starts it again on its store.
    pub(crate) fn restart_billing(&mut self) {
        let billing = &mut self.services.as_mut().expect("this site was started here").billing;
        assert!(billing.stop().success(), "{}", billing.log());
        billing.start_again();
    }

    /// GET request to billing.
    pub(crate) fn get(&self, path: &str) -> Answer {
        http::get(&format!("{}{path}", self.billing))
    }

    /// A request to billing.
    pub(crate) fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        http::call(method, &format!("{}{path}", self.billing), headers, body.as_bytes())
    }

    /// A request to payments.
    pub(crate) fn provider(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        http::call(method, &format!("{}{path}", self.payments), headers, body.as_bytes())
    }

    /// Makes one legacy pay call; returns its body.
    pub(crate) fn pay(&self) -> String {
        let answer = self.call("POST", "/rest/v1/invoices/pay", &[], "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// The number of PAID invoices in the Antaeus list.
    pub(crate) fn paid(&self) -> usize {
        let list = self.get("/rest/v1/invoices").json();
        list.as_array().expect("a list").iter().filter(|invoice| invoice["status"] == "PAID").count()
    }

    /// The number of CHARGED rows in our own ledger.
    pub(crate) fn charges(&self) -> i64 {
        testkit::ledger::ask(
            &self.services().payments.db(),
            "SELECT count(*) FROM ledger WHERE state = 'CHARGED'",
        )
    }
}

/// Settings of the Antaeus environment.
pub(crate) fn antaeus() -> Builder {
    own().billing_flags(["--demo", "antaeus"])
}

/// Settings of the invoice-app environment: a provider that refuses nothing.
pub(crate) fn invoice_app() -> Builder {
    invoice_app_at_success_rate("1")
}

/// The invoice-app environment with another share of charges that succeed.
pub(crate) fn invoice_app_at_success_rate(share: &str) -> Builder {
    own()
        .billing_flags(["--demo", "invoice-app"])
        .payments_flags(["--success-rate", share])
        .provider_path("/payments/pay")
}

/// Billing alone with the Antaeus data, with a foreign provider without keys.
pub(crate) fn antaeus_at(provider: &str) -> Builder {
    own()
        .billing_flags(["--demo", "antaeus"])
        .billing_env("PAYMENT_PROVIDER_ENDPOINT", provider)
        .billing_env("PAYMENT_PROVIDER_IDEMPOTENCY", "none")
}

/// The compared parts of an answer: status, content type, body.
pub(crate) fn seen(answer: &Answer) -> (u16, String, String) {
    (answer.status, answer.header("content-type").unwrap_or("").to_owned(), answer.text())
}

/// The same parts of an expected answer.
pub(crate) fn shown(status: u16, content_type: &str, body: &str) -> (u16, String, String) {
    (status, content_type.to_owned(), body.to_owned())
}
