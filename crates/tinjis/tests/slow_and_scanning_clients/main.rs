//! Proof: scanners find TLS 1.3 and nothing weak on the business ports, and clients that are deliberately slow, in the
//! handshake or after it, do not delay others. A few seconds here, `make hostile` is the full size.
#![cfg(test)]

mod scan;
mod slow;

use std::fs;

use tempfile::TempDir;
use testkit::Process;
use testkit::certs::Authority;
use testkit::process::{Spec, run_by};

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");

/// Services with TLS on their business ports.
pub(crate) struct Site {
    pub(crate) authority: Authority,
    folder: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let (authority, folder) = (Authority::new("ours"), tempfile::tempdir().expect("a folder"));
        authority.server("localhost").write(folder.path(), "server");
        Self { authority, folder }
    }

    fn text(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    /// Billing or payments, with a certificate of its own.
    pub(crate) fn service(&self, name: &'static str) -> Process {
        let mut spec = Spec::new(run_by(TINJIS, name), name, self.folder.path());
        let mut set = |name: &str, value: String| spec.env.insert(name.to_owned(), value);
        set("LOG_LEVEL", "error".to_owned());
        set("TLS_CERT", self.text("server.pem"));
        set("TLS_KEY", self.text("server.key"));
        Process::start(spec)
    }

    pub(crate) fn ponger(&self) -> Process {
        let mut spec = Spec::new(run_by(TINJIS, "ponger"), "ponger", self.folder.path());
        spec.flags = vec!["-c".to_owned(), self.text("ponger.yaml")];
        let mut process = Process::new(spec);
        let admin = process.admin_url().rsplit_once(':').map(|(_, port)| port.to_owned()).expect("a port");
        let configuration = format!(
            "service:\n  port: {}\n  address: 127.0.0.1\n  tlsCertificate: {}\n  tlsPrivateKey: {}\nmetrics:\n  \
             port: {admin}\n  address: 127.0.0.1\n",
            process.address().port(),
            self.text("server.pem"),
            self.text("server.key"),
        );
        fs::write(self.text("ponger.yaml"), configuration).expect("a file");
        process.start_again();
        process
    }
}
