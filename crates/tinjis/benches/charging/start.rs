//! What a service costs before its first work: time to its first healthy answer, memory when idle, size of the binaries
//! for images. Knows no goal that ends the benchmark.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::http;
use testkit::process::{Process, Spec, run_by};
use testkit::wait::{pause, timed, wait_until};

use crate::mebibytes;

/// How often a start is measured; the figure is the median.
const STARTS: usize = 7;
/// A service answers within this, on any machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A service gets no request for this long before its memory is called idle.
const IDLE: Duration = Duration::from_secs(1);

/// Measures and prints both services, and the sizes of the binaries that `make dist` has built.
pub(crate) fn report(out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    for (name, path) in [("billing", "/rest/health"), ("payments", "/health")] {
        let dist = dist(name);
        let program = dist.as_ref().map_or_else(
            || run_by(env!("CARGO_BIN_EXE_tinjis"), name),
            |binary| vec![OsString::from(binary)],
        );
        let (first, idle_kib) = measure(name, path, &program)?;
        let of = if dist.is_some() { "dist binary" } else { "tinjis run, release; `make dist` was not run" };
        writeln!(
            out,
            "{name:<9} first healthy answer after {} ms, idle memory {} ({of})",
            first.as_millis(),
            mebibytes(idle_kib)
        )?;
    }
    for name in ["billing", "payments", "tinjis"] {
        match dist(name) {
            Some(binary) => {
                writeln!(out, "{name:<9} {} static", mebibytes(binary.metadata()?.len() / 1024))?;
            }
            None => writeln!(out, "{name:<9} size left out: `make dist` was not run")?,
        }
    }
    Ok(())
}

fn measure(name: &'static str, path: &str, program: &[OsString]) -> io::Result<(Duration, u64)> {
    let mut starts = Vec::new();
    let mut idle_kib = 0;
    for _ in 0..STARTS {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut process = Process::new(Spec::new(program.to_vec(), name, dir.path()));
        let url = format!("{}{path}", process.url());
        let ((), took) = timed(|| {
            process.spawn();
            wait_until("a first healthy answer", ANSWER_WITHIN, || {
                http::try_call("GET", &url, &[], b"").is_ok_and(|answer| answer.status == 200)
            });
        });
        if starts.is_empty() {
            pause(IDLE);
            idle_kib = process.rss_kib();
        }
        starts.push(took);
    }
    starts.sort_unstable();
    Ok((starts[STARTS / 2], idle_kib))
}

/// A binary that `make dist` has built, if it exists.
fn dist(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    Some(target.join("x86_64-unknown-linux-gnu/dist").join(name)).filter(|binary| binary.is_file())
}
