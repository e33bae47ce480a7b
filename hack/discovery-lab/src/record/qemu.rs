//! A QEMU process as `/proc` shows it: which VM it is, whether it waits for a migration, and whether its processors run.

use std::{fs, path::Path};

/// What a QEMU's command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The domain's uuid: the agents derive it from environment, member and index, so that it is the VM's on every node.
    pub uuid: String,
    /// The domain's name, `NAMESPACE.VM`.
    pub name: String,
    /// Whether it was started to take a running guest over (`-incoming`).
    pub incoming: bool,
}

impl Qemu {
    /// The QEMU that this process is; `None` when it is another program, one that only tells what it can, or gone.
    pub fn of(pid: i32) -> Option<Self> {
        Self::of_command_line(&fs::read(format!("/proc/{pid}/cmdline")).ok()?)
    }

    fn of_command_line(line: &[u8]) -> Option<Self> {
        let words: Vec<&str> = line
            .split(|byte| *byte == 0)
            .filter_map(|word| std::str::from_utf8(word).ok())
            .collect();
        let program = Path::new(words.first()?).file_name()?.to_str()?;
        if !program.starts_with("qemu-system-") && program != "qemu-kvm" {
            return None;
        }
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag)?;
            words.get(at + 1).copied()
        };
        // libvirt asks QEMUs without a guest what they can do: those have no uuid.
        let uuid = after("-uuid")?.to_owned();
        let name = after("-name").unwrap_or("");
        let name = name.split(',').next().unwrap_or(name);
        Some(Self {
            uuid,
            name: name.strip_prefix("guest=").unwrap_or(name).to_owned(),
            incoming: after("-incoming").is_some(),
        })
    }
}

/// Nanoseconds that the guest's processors have run; `None` while it has none (or for ever: then it is no QEMU of
/// libvirt's, which names the threads).
pub fn guest_time_ns(pid: i32) -> Option<u64> {
    let mut sum = None;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if !is_processor(name.trim()) {
            continue;
        }
        let ran = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let ran: u64 = ran.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        sum = Some(sum.unwrap_or(0) + ran);
    }
    sum
}

// `CPU 0/KVM`, `CPU 1/TCG`, `ALL CPUs/TCG`.
fn is_processor(thread: &str) -> bool {
    thread.starts_with("CPU ") || thread.starts_with("ALL CPUs")
}

/// When a process was started, of CLOCK_BOOTTIME, as exactly as `/proc` knows: to 10 ms, rounded down.
pub fn started_ns(pid: i32) -> Option<u64> {
    /// `USER_HZ`, the same on every Linux.
    const TICK_NS: u64 = 10_000_000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the start is the 20th field after it.
    let ticks = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(ticks.parse::<u64>().ok()? * TICK_NS)
}

/// Whether a process is on its way out: none of its code is run any more.
pub fn is_ending(pid: i32) -> bool {
    /// `PF_EXITING` of the kernel's `sched.h`.
    const EXITING: u64 = 0x4;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The seventh field after the name.
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6));
    flags.and_then(|flags| flags.parse::<u64>().ok()).is_none_or(|flags| flags & EXITING != 0)
}

/// All processes there are.
pub fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<u8> {
        words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect()
    }

    #[test]
    fn a_guest_is_known_by_its_uuid_and_a_target_by_incoming() {
        let mut words = vec![
            "/usr/bin/qemu-system-x86_64",
            "-name",
            "guest=shop.web-0,debug-threads=on",
            "-S",
            "-uuid",
            "1-2",
        ];
        let plain = Qemu { uuid: "1-2".into(), name: "shop.web-0".into(), incoming: false };
        assert_eq!(Qemu::of_command_line(&line(&words)), Some(plain.clone()));
        words.extend(["-incoming", "defer"]);
        assert_eq!(Qemu::of_command_line(&line(&words)), Some(Qemu { incoming: true, ..plain }));
    }

    #[test]
    fn what_is_no_guest_is_none() {
        assert_eq!(
            Qemu::of_command_line(&line(&["grep", "qemu-system-x86_64", "-uuid", "1"])),
            None
        );
        let probe = ["/usr/bin/qemu-system-x86_64", "-S", "-machine", "none,accel=tcg"];
        assert_eq!(Qemu::of_command_line(&line(&probe)), None);
        assert_eq!(Qemu::of_command_line(b""), None);
    }

    #[test]
    fn guests_processors_are_told_by_their_threads_names() {
        assert!(["CPU 0/KVM", "CPU 11/TCG", "ALL CPUs/TCG"].into_iter().all(is_processor));
        assert!(!["qemu-system-x86", "IO mon_iothread", "CPU-like"].into_iter().any(is_processor));
    }

    #[test]
    fn our_own_start_is_before_now() {
        let started = started_ns(std::process::id().cast_signed()).expect("we run");
        assert!(started > 0 && started <= super::super::boottime_ns());
    }

    #[test]
    fn who_has_ended_and_was_not_waited_for_is_on_its_way_out() {
        assert!(!is_ending(std::process::id().cast_signed()));
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a child");
        let pid = child.id().cast_signed();
        assert!(!is_ending(pid));
        child.kill().expect("it is ours");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !is_ending(pid) {
            assert!(std::time::Instant::now() < until, "it was killed");
            std::thread::yield_now();
        }
        child.wait().expect("it ended");
        assert!(is_ending(pid), "nobody is there");
    }
}
