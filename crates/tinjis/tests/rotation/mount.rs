//! Certificates of all four services and of the load, in the layout of a mounted secret: each change is one swap of a
//! link. Knows authorities and files, and no service.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use testkit::certs::{Authority, Pair};

/// The SAN allow-list of every service.
pub(crate) const CLIENT: &str = "spiffe://cluster.local/ns/antaeus/sa/antaeus";

pub(crate) struct Mount {
    folder: TempDir,
    old: Authority,
    new: Authority,
    state: RefCell<State>,
}

struct State {
    version: u32,
    trusted: String,
    server: Pair,
    client: Pair,
}

impl Mount {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (Authority::new("the old one"), Authority::new("the new one"));
        let state = State {
            version: 0,
            trusted: old.pem(),
            server: old.server("localhost"),
            client: old.client(CLIENT),
        };
        let mount = Self { folder, old, new, state: RefCell::new(state) };
        mount.swap();
        for file in ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"] {
            symlink(Path::new("..data").join(file), mount.path(file)).expect("a link");
        }
        let strangers = mount.old.client(CLIENT);
        strangers.write(mount.folder.path(), "old-client");
        mount
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn text(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    /// The certificate of every server.
    pub(crate) fn server_leaf(&self) -> String {
        self.state.borrow().server.certificate.clone()
    }

    pub(crate) fn new_leaves(&self) {
        self.leaves_of(&self.old);
    }

    pub(crate) fn new_leaves_of_new(&self) {
        self.leaves_of(&self.new);
    }

    fn leaves_of(&self, authority: &Authority) {
        let mut state = self.state.borrow_mut();
        (state.server, state.client) = (authority.server("localhost"), authority.client(CLIENT));
        drop(state);
        self.swap();
    }

    pub(crate) fn trust_both(&self) {
        self.state.borrow_mut().trusted = self.old.pem() + &self.new.pem();
        self.swap();
    }

    pub(crate) fn trust_new(&self) {
        self.state.borrow_mut().trusted = self.new.pem();
        self.swap();
    }

    /// Writes the key of another certificate, as a mistaken change would.
    pub(crate) fn break_leaf(&self) {
        self.write_version(|folder| {
            fs::write(folder.join("server.key"), self.new.server("localhost").key).expect("a file");
        });
    }

    pub(crate) fn mend_leaf(&self) {
        self.swap();
    }

    fn swap(&self) {
        self.write_version(|_| {});
    }

    fn write_version(&self, spoil: impl Fn(&Path)) {
        let mut state = self.state.borrow_mut();
        state.version += 1;
        let version = format!("..{}", state.version);
        let folder = self.folder.path().join(&version);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("ca.pem"), &state.trusted).expect("a file");
        state.server.write(&folder, "server");
        state.client.write(&folder, "client");
        spoil(&folder);
        symlink(version, self.path("..next")).expect("a link");
        fs::rename(self.path("..next"), self.path("..data")).expect("a swap");
    }

    /// Whether curl, which shares no code with us, gets an answer with the client certificate of the new authority.
    pub(crate) fn is_accepted(&self, url: &str) -> bool {
        self.curl(url, "client")
    }

    /// Whether curl gets an answer with a certificate of the old authority that is otherwise valid.
    pub(crate) fn is_accepted_by_old(&self, url: &str) -> bool {
        self.curl(url, "old-client")
    }

    fn curl(&self, url: &str, shows: &str) -> bool {
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", "--cacert"])
            .arg(self.path("ca.pem"))
            .arg("--cert")
            .arg(self.path(&format!("{shows}.pem")))
            .arg("--key")
            .arg(self.path(&format!("{shows}.key")))
            .arg(url)
            .output();
        output.expect("curl can be started").status.success()
    }
}
