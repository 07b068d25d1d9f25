//! How a command connects to a service: plainly, or over https by `--ca`, `--cert` and `--key`. Knows no route.

use std::path::PathBuf;

use chassis::client::{Client, ClientConfig};
use chassis::clock::Clock;
use chassis::config::{Problems, Setting, client_tls, no_client_tls, non_empty};
use chassis::tls::TlsConnect;
use http::Uri;
use http::uri::Scheme;

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
    /// The service there; `None` when a mistake was recorded. Says nothing of files that it does not need: see
    /// [`Self::check_needed`].
    pub(crate) fn api(&self, base: BaseUrl, problems: &mut Problems) -> Option<Api> {
        if !base.is_secure() {
            return Some(Api::new(base));
        }
        self.connect(problems).map(|connect| Api::over_tls(base, connect))
    }

    /// Records a mistake if the files are given and none of the services that a command calls is called over TLS.
    pub(crate) fn check_needed<'a>(
        &self,
        bases: impl IntoIterator<Item = &'a BaseUrl>,
        problems: &mut Problems,
    ) {
        let bases: Vec<&BaseUrl> = bases.into_iter().collect();
        if let [first, ..] = bases[..]
            && !bases.iter().any(|base| base.is_secure())
        {
            no_client_tls(self.files().each_ref(), first, problems);
        }
    }

    /// Records a mistake for each given file. For a command that calls no service over TLS because this option is
    /// missing.
    pub(crate) fn check_not_given_without(&self, option: &str, problems: &mut Problems) {
        for file in self.files().iter().filter(|file| file.is_given()) {
            problems.add(file.name(), format_args!("is given, but it has no use without {option}"));
        }
    }

    /// A client of this URL with these limits; `None` when a mistake was recorded.
    pub(crate) fn client(&self, url: &Uri, config: ClientConfig, problems: &mut Problems) -> Option<Client> {
        if url.scheme() == Some(&Scheme::HTTPS) {
            return self.connect(problems).map(|connect| Client::with_connect(config, connect));
        }
        no_client_tls(self.files().each_ref(), url, problems).then(|| Client::new(config))
    }

    fn connect(&self, problems: &mut Problems) -> Option<TlsConnect> {
        let [ca, cert, key] = self.files();
        let files = client_tls(&ca, &cert, &key, problems)?;
        problems.check("--ca", TlsConnect::once(files, Clock::system()))
    }

    fn files(&self) -> [Setting<PathBuf>; 3] {
        [("--ca", &self.ca), ("--cert", &self.cert), ("--key", &self.key)]
            .map(|(name, path)| Setting::new(name, non_empty(path).map(PathBuf::from)))
    }
}
