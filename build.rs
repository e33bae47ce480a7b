//! Tells the binaries which commit they were built from, for `--version`.

use std::path::Path;
use std::process::Command;

fn main() {
    let given = std::env::var("DISCOVERY_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    let commit = commit.unwrap_or_else(|| "unknown commit".to_owned());
    println!("cargo:rustc-env=DISCOVERY_COMMIT={commit}");
    println!("cargo:rerun-if-env-changed=DISCOVERY_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    // Grows with every commit. In a work tree it is elsewhere; a file that is not there would mean that
    // everything is built anew each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    if let Some(log) = log.filter(|log| Path::new(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    Some(String::from_utf8(text).ok()?.trim().to_owned())
}
