//! How a command connects to a service: plainly, or over https by `--ca`, `--cert` and `--key`. Knows no route.

use std::path::PathBuf;

use chassis::client::{Client, ClientConfig};
use chassis::clock::Clock;
use chassis::config::{Problems, Setting, client_tls, non_empty};
use chassis::tls::TlsConnect;

use crate::http::{Api, BaseUrl};

#[derive(Debug, clap::Args)]
pub(crate) struct TlsArgs {
    /// CA bundle (PEM) for services over https
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    /// Client certificate (PEM) for services over https
    #[arg(long, value_name = "FILE")]
    cert: Option<String>,
    /// Key of that certificate in PEM
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
}

impl TlsArgs {
    /// The API of the service at `base`; `None` when a mistake was recorded.
    pub(crate) fn api(&self, base: BaseUrl, problems: &mut Problems) -> Option<Api> {
        if !base.is_secure() {
            return Some(Api::new(base));
        }
        self.connect(problems).map(|connect| Api::over_tls(base, connect))
    }

    /// A client with these limits, over TLS or not; `None` when a mistake was recorded.
    pub(crate) fn client(
        &self,
        is_secure: bool,
        config: ClientConfig,
        problems: &mut Problems,
    ) -> Option<Client> {
        match is_secure {
            false => Some(Client::new(config)),
            true => self.connect(problems).map(|connect| Client::with_connect(config, connect)),
        }
    }

    fn connect(&self, problems: &mut Problems) -> Option<TlsConnect> {
        let [ca, cert, key] = [("--ca", &self.ca), ("--cert", &self.cert), ("--key", &self.key)]
            .map(|(name, path)| Setting::new(name, non_empty(path).map(PathBuf::from)));
        let files = client_tls(&ca, &cert, &key, problems)?;
        problems.check("--ca", TlsConnect::once(files, Clock::system()))
    }
}
