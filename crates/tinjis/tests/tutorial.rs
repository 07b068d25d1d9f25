//! The commands of the tutorial "Your first month", run as the page states them, print what the page shows. Only the
//! addresses differ: each test has ports of its own. Knows Markdown's fences; the page has the rest.
#![cfg(test)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use testkit::process::free_address;

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tutorial/first-month.md");
/// A line that is printed after each block of commands.
const END: &str = "=== end of block";

/// Commands, and the output that the page shows for them; empty if it shows none.
struct Block {
    commands: String,
    shown: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut lines) = (Vec::<Block>::new(), page.lines());
    while let Some(line) = lines.next() {
        let Some(kind @ ("sh" | "text")) = line.strip_prefix("```") else { continue };
        let text: String =
            lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        match (kind, blocks.last_mut()) {
            ("sh", _) => blocks.push(Block { commands: text, shown: String::new() }),
            (_, Some(block)) => block.shown = text,
            (_, None) => panic!("output without commands: {text}"),
        }
    }
    blocks
}

/// The programs in the commands, on free ports: each default address of the page, and its replacement.
fn programs(folder: &Path) -> [(&'static str, String); 3] {
    let [billing, billing_admin, payments, payments_admin] = [(); 4].map(|()| free_address());
    let write = |name: &str, script: String| {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be made one");
    };
    write(
        "billing",
        format!(
            "export LISTEN={billing} ADMIN_LISTEN={billing_admin} PAYMENT_PROVIDER_ENDPOINT=http://{payments}\n\
             exec '{TINJIS}' run billing \"$@\""
        ),
    );
    write(
        "payments",
        format!(
            "export LISTEN={payments} ADMIN_LISTEN={payments_admin}\nexec '{TINJIS}' run payments \"$@\""
        ),
    );
    write(
        "tinjis",
        format!(
            "[ \"$1\" = verify ] && set -- \"$@\" --payments http://{payments}\n\
             exec '{TINJIS}' \"$@\" --billing http://{billing}"
        ),
    );
    [("8000", billing), ("8001", billing_admin), ("9001", payments_admin)]
        .map(|(port, address)| (port, address.to_string()))
}

#[test]
fn the_commands_of_the_first_month_print_what_the_page_shows() {
    let page = fs::read_to_string(PAGE).expect("the page is there");
    let blocks = blocks(&page);
    assert!(blocks.iter().filter(|block| !block.shown.is_empty()).count() >= 6, "the page shows its results");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let [bin, work] = ["bin", "work"].map(|name| folder.path().join(name));
    [&bin, &work].into_iter().for_each(|path| fs::create_dir(path).expect("a folder can be made"));
    let addresses = programs(&bin);
    let mut script = "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n".to_owned();
    for block in &blocks {
        let commands = addresses.iter().fold(block.commands.clone(), |commands, (port, address)| {
            commands.replace(&format!("localhost:{port}"), address)
        });
        script.push_str(&commands);
        script.push_str(&format!("echo '{END}'\n"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = Command::new("/bin/bash")
        .args(["-euo", "pipefail", "-c", &script])
        .env_clear()
        .env("PATH", format!("{}:{}", bin.display(), path.display()))
        .current_dir(&work)
        .output()
        .expect("a shell can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    let notes = String::from_utf8_lossy(&output.stderr);
    let printed: Vec<&str> = said.split(&format!("{END}\n")).collect();
    for (block, printed) in blocks.iter().zip(&printed) {
        assert_eq!(*printed, block.shown, "after:\n{}\n{notes}", block.commands);
    }
    assert_eq!(printed.len(), blocks.len() + 1, "every block ran to its end:\n{said}\n{notes}");
}
