//! Guards a server process of a test: the server ends with the test's process, even if that is killed, and its folder
//! is then deleted. As root the server runs as another user, because such servers refuse root. Knows no server.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Users for servers that refuse root; the first that exists is used.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// Stops the server on a line of standard input. At the end of the input, which a killed test process causes, it also
/// removes the folder. SIGHUP must not end the guard first: it arrives when the test's process is killed while a server
/// of the group is stopped.
const SCRIPT: &str = r#"
trap '' HUP
exec 3<&0
"$@" </dev/null 3<&- &
pid=$!
{ word=; read -r word <&3 || true; [ -n "$word" ] || : >"$KEPT/gone"; kill -"$END" "$pid"; } 2>/dev/null &
reader=$!
wait "$pid"
kill "$reader" 2>/dev/null
if [ -e "$KEPT/gone" ]; then rm -rf "$KEPT"; fi
"#;

/// The guard of a running server.
#[derive(Debug)]
pub(super) struct ProcessGuard(Child);

impl ProcessGuard {
    /// Starts a server whose files are in this folder and that this signal ends; its output goes to `server.log` in the
    /// folder.
    #[track_caller]
    pub(super) fn start<S: AsRef<std::ffi::OsStr>>(
        dir: &Path,
        user: Option<(u32, u32)>,
        program: &Path,
        end: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let log = fs::File::options().create(true).append(true).open(dir.join("server.log"));
        let log = log.expect("a log can be written");
        let child = command(Path::new("/bin/sh"), dir, user)
            .args(["-c", SCRIPT, "process-guard"])
            .arg(program)
            .args(args)
            .env("KEPT", dir)
            .env("END", end)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log can be shared"))
            .stderr(log)
            .spawn();
        Self(child.expect("a shell can be started"))
    }

    /// Whether the server has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Stops the server, if it still runs, and keeps its folder.
    pub(super) fn stop(self) {
        self.end(b"keep\n");
    }

    /// Stops the server and removes its folder.
    pub(super) fn remove(self) {
        self.end(b"");
    }

    fn end(mut self, word: &[u8]) {
        if let Some(mut input) = self.0.stdin.take() {
            // If the guard has ended already, it needs no word.
            let _ = input.write_all(word);
        }
        let _ = self.0.wait();
    }
}

/// A command for a program in a folder, with a nearly empty environment, as this user.
pub(super) fn command(program: &Path, dir: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir(dir);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// The user that servers run as; `None` for the current one.
pub(super) fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |name: &&str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(USERS.iter().find_map(ids).unwrap_or((65_534, 65_534)))
}
