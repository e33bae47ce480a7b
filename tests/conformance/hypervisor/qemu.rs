//! What only real guests show.

use std::path::Path;

use super::subject::Subject;

pub fn run(_: &mut Subject, _: &Path) {}
