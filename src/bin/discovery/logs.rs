//! Log lines: for people on a terminal, JSON in a pod.

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, Logs};

/// Begins to log to the standard error output.
pub fn start(flags: &Logs) -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_new(&flags.log)
        .map_err(|error| format!("--log: '{}' is no filter: {error}", flags.log))?;
    let terminal = std::io::stderr().is_terminal();
    let default = if terminal { LogFormat::Text } else { LogFormat::Json };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match flags.log_format.unwrap_or(default) {
        LogFormat::Text => subscriber.with_ansi(terminal).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).init(),
    }
    Ok(())
}
