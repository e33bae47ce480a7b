//! Tells the binaries which commit they were built from, for `--version`.

use std::process::Command;

fn main() {
    let given = std::env::var("DISCOVERY_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.unwrap_or_else(|| {
        let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
        let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        text.map_or_else(|| "unknown commit".to_owned(), |text| text.trim().to_owned())
    });
    println!("cargo:rustc-env=DISCOVERY_COMMIT={commit}");
    println!("cargo:rerun-if-env-changed=DISCOVERY_COMMIT");
    println!("cargo:rerun-if-changed=.git/logs/HEAD");
}
