//! How much memory runs take. Like real time, it never reaches what is simulated.

use std::fs;

/// From here on the most counts that the process has from now on; on a system that cannot forget, from its start.
pub fn forget() {
    // proc(5), `clear_refs`: 5 sets the peak to what is used now.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most that the process has had, MiB; nothing where the system does not say.
pub fn peak_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Other tests run at the same time, in a few MiB.
    #[test]
    fn what_is_taken_shows_in_the_peak_until_that_is_forgotten() {
        let taken = vec![1_u8; 64 << 20];
        let peak = peak_mib().expect("Linux says");
        assert!(peak >= 64.0, "{peak} {}", taken.len());
        drop(taken);
        forget();
        assert!(peak_mib() < Some(peak - 32.0), "{peak}");
    }
}
