//! Running programs, and finding again what the lab has started.
//!
//! The lab keeps no pid files: a process that is killed between its start and the writing of its pid would
//! be lost. Each process carries a mark in its environment instead, and `/proc` is the register.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    error::{AtPath, LabError, Result},
    layout::{Layout, MARK},
};

/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(50);

/// A process of the lab, as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number as the host sees it.
    pub pid: i32,
    /// What it is for, such as `etcd` or `node/n1`.
    pub role: String,
    /// True for the first process of a pid namespace: the node itself. Ending it ends all that is inside.
    pub is_node_init: bool,
}

/// All processes that the lab of this layout has started, by their mark.
pub fn find_all(layout: &Layout) -> Vec<Found> {
    marked(&format!("{MARK}={} ", layout.dir.display()))
}

/// Whether anything of any lab runs on this host.
pub fn any_lab_runs() -> bool {
    !marked(&format!("{MARK}=")).is_empty()
}

fn marked(prefix: &str) -> Vec<Found> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<Found> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| look(pid, prefix))
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn look(pid: i32, prefix: &str) -> Option<Found> {
    // Processes come and go while we read, and kernel threads have no environment: both are no finds.
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let role = role_in(&environment, prefix)?;
    (!is_zombie(&status)).then(|| Found {
        pid,
        role,
        is_node_init: is_first_of_its_namespace(&status),
    })
}

/// The node of this lab that a process runs on, by the first process among its ancestors: a few files, however many
/// processes there are.
pub fn node_of(layout: &Layout, pid: i32) -> Option<String> {
    let mut pid = pid;
    while pid > 1 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        if is_first_of_its_namespace(&status)
            && let Some(found) = look(pid, &format!("{MARK}={} ", layout.dir.display()))
        {
            return found.role.strip_prefix("node/").map(str::to_owned);
        }
        pid = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    }
    None
}

/// The processes of one role.
pub fn find(layout: &Layout, role: &str) -> Vec<Found> {
    find_all(layout).into_iter().filter(|process| process.role == role).collect()
}

fn role_in(environment: &[u8], prefix: &str) -> Option<String> {
    environment
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok())
        .find_map(|entry| entry.strip_prefix(prefix))
        .map(str::to_owned)
}

fn is_zombie(status: &str) -> bool {
    status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
}

// `NSpid:` lists the process's numbers from the reader's namespace inwards.
fn is_first_of_its_namespace(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .map(|pids| pids.split_whitespace().collect::<Vec<_>>())
        .is_some_and(|pids| pids.len() > 1 && pids.last() == Some(&"1"))
}

/// Kills these processes at once and waits until they are gone.
pub fn kill_and_wait(processes: &[Found], within: Duration) -> Result<()> {
    for process in processes {
        signal(process.pid, Signal::KILL);
    }
    wait_gone(processes, within)
}

/// Asks these processes to end, and kills those that have not within the time.
pub fn terminate(processes: &[Found], within: Duration) -> Result<()> {
    for process in processes {
        signal(process.pid, Signal::TERM);
    }
    match wait_gone(processes, within) {
        Ok(()) => Ok(()),
        Err(_) => kill_and_wait(processes, within),
    }
}

/// Sends a signal; that the process is already gone is no failure.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // The only error a root can meet here is that the process has ended.
        let _ = kill_process(pid, signal);
    }
}

fn wait_gone(processes: &[Found], within: Duration) -> Result<()> {
    wait_for("the lab's processes to end", within, "see ps", || {
        processes.iter().all(|process| {
            fs::read_to_string(format!("/proc/{}/status", process.pid))
                .map_or(true, |status| is_zombie(&status))
        })
    })
}

/// Looks at a condition until it holds or the time is over.
pub fn wait_for(
    what: &str,
    within: Duration,
    hint: &str,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() >= within {
            return Err(LabError::Deadline {
                what: what.into(),
                waited: within,
                hint: hint.into(),
            });
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Starts a program that goes on after the lab command has ended: in a process group of its own (so that no
/// Ctrl-C reaches it), marked, with its output in a log file.
pub fn start_daemon(
    layout: &Layout,
    role: &str,
    mut command: Command,
    log: &Path,
) -> Result<Child> {
    if let Some(parent) = log.parent() {
        fs::create_dir_all(parent).at(parent)?;
    }
    let out = File::options().create(true).append(true).open(log).at(log)?;
    let err = out.try_clone().at(log)?;
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .env(MARK, layout.mark(role))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .map_err(|source| LabError::Start { program, source })
}

/// Runs a command to its end and returns its standard output; failing is an error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(LabError::Failed {
        command: shown(command),
        status: output.status,
        stderr: tail(&output.stderr),
    })
}

/// Runs a command to its end, whatever that is.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().map_err(|source| LabError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })
}

/// A command from its words.
pub fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

// The last kilobyte says why; the rest is in the program's own log.
fn tail(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let start = text.char_indices().rev().nth(1023).map_or(0, |(index, _)| index);
    text[start..].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_from_the_mark_of_this_lab_only() {
        let environment = b"PATH=/bin\0DISCOVERY_LAB_PROCESS=/lab node/n1\0A=b\0";
        assert_eq!(role_in(environment, "DISCOVERY_LAB_PROCESS=/lab ").as_deref(), Some("node/n1"));
        assert_eq!(role_in(environment, "DISCOVERY_LAB_PROCESS=/lab2 "), None);
        assert_eq!(role_in(environment, "DISCOVERY_LAB_PROCESS=/la "), None);
    }

    #[test]
    fn only_the_first_process_of_an_inner_namespace_is_a_node() {
        assert!(is_first_of_its_namespace("Name:\tx\nNSpid:\t4711\t1\n"));
        assert!(!is_first_of_its_namespace("Name:\tx\nNSpid:\t4711\t12\n"));
        assert!(!is_first_of_its_namespace("Name:\tx\nNSpid:\t1\n"));
    }

    #[test]
    fn a_failed_command_tells_what_it_said() {
        let error =
            run(&mut command("sh", ["-c", "echo why >&2; exit 3"])).expect_err("it exits with 3");
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn a_started_process_is_found_by_its_mark_and_killed() {
        let dir = std::env::temp_dir().join(format!("discovery-lab-test-{}", std::process::id()));
        let layout = Layout { dir: dir.clone(), cache: dir.clone(), net: "10.250".into() };
        let mut child =
            start_daemon(&layout, "sleeper", command("sleep", ["600"]), &dir.join("log"))
                .expect("sleep is on every system");
        // A process that has only just been started has no environment yet, for some microseconds.
        wait_for("the mark", Duration::from_secs(5), "", || !find(&layout, "sleeper").is_empty())
            .expect("it is marked");
        let found = find(&layout, "sleeper");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid as u32, child.id());
        kill_and_wait(&found, Duration::from_secs(5)).expect("a sleeper dies at once");
        child.wait().expect("it is our child");
        assert!(find_all(&layout).is_empty());
        fs::remove_dir_all(dir).expect("the test made it");
    }
}
