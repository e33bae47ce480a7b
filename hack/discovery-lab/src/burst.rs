//! A burst of applies, measured from outside: how long until each environment is ready, what it costs the API
//! server, and what the agents take meanwhile. Used by `hack/bench/burst`.
//!
//! Times are a client's: from the answer to its POST until its own watch shows `Ready=True`. Requests go
//! through one `kubectl proxy`, so that no program is started per environment.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    audit::Request,
    error::{AtPath as _, LabError, Result},
    image::digest,
    lab::Lab,
    layout::GUESTS_IN_NODE,
    process::wait_for,
};

const NAMESPACE: &str = "burst";
const GROUP: &str = "discovery.beyondtheclouds.io";
const AGENT: &str = "system:serviceaccount:discovery-system:discovery-agent";
/// Environments that are not ready by then never will be.
const ALL_READY_WITHIN: Duration = Duration::from_secs(180);
/// Late writes (Events wait for others to be told with them) belong to the burst too.
const WRITES_SETTLE: Duration = Duration::from_secs(30);
/// Over which time a processor's use is averaged.
const CPU_WINDOW: Duration = Duration::from_secs(20);

/// What is applied.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Burst {
    /// How many environments, each of one VM of one processor and 32 MiB.
    pub environments: usize,
    /// One is applied each time this has passed.
    pub every_ms: u64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Environments that were ready in time.
    pub ready: usize,
    /// From POST to Ready, seconds: half of them, 95 % of them, all.
    pub ready_s: [f64; 3],
    /// The agents' writes at the API server about these environments, by what was written.
    pub writes: BTreeMap<String, usize>,
    /// Agents that watch all environments.
    pub watchers: Vec<String>,
    /// Each agent without a VM, and with all of them.
    pub agents: BTreeMap<String, [Agent; 2]>,
}

/// An agent's process.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Agent {
    /// Resident, MiB.
    pub resident_mib: f64,
    /// Of one processor, percent.
    pub cpu_percent: f64,
}

struct Proxy {
    child: Child,
    address: String,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unexpected(what: &str, detail: impl ToString) -> LabError {
    LabError::Unexpected { what: what.into(), detail: detail.to_string() }
}

impl Lab {
    /// Applies a burst and measures. The environments are deleted afterwards.
    pub fn burst(&self, burst: Burst) -> Result<Measured> {
        self.kubectl(&["create", "namespace", NAMESPACE])?;
        let result = self.measure(burst);
        self.say("deleting the environments");
        self.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=180s"])?;
        result
    }

    fn measure(&self, burst: Burst) -> Result<Measured> {
        self.say("the agents without VMs");
        let idle = self.agents()?;
        let proxy = self.proxy()?;
        self.say(&format!("{} environments, one every {} ms", burst.environments, burst.every_ms));
        let mut took = self.apply_all(&proxy, burst)?;
        took.sort_by(f64::total_cmp);
        self.say(&format!("{} of {} are ready", took.len(), burst.environments));
        thread::sleep(WRITES_SETTLE);
        let audit = self.audit()?;
        self.say("the agents with all VMs");
        let busy = self.agents()?;
        let agents = idle.into_iter().filter_map(|(node, idle)| {
            let busy = *busy.get(&node)?;
            Some((node, [idle, busy]))
        });
        let rank = |share: f64| {
            let at = (share * took.len() as f64).ceil() as usize;
            took.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        Ok(Measured {
            ready: took.len(),
            ready_s: [rank(0.5), rank(0.95), rank(1.0)],
            writes: writes(&audit),
            watchers: watchers(&audit),
            agents: agents.collect(),
        })
    }

    /// Applies all, and returns the seconds of those that became ready.
    fn apply_all(&self, proxy: &Proxy, burst: Burst) -> Result<Vec<f64>> {
        let (sender, events) = mpsc::channel();
        let watch = get(&proxy.address, &format!("{}?watch=1", path()))?;
        thread::spawn(move || {
            for line in BufReader::new(watch).lines().map_while(std::result::Result::ok) {
                let seen = Instant::now();
                if let Some(name) = ready_in(&line)
                    && sender.send((name, seen)).is_err()
                {
                    return;
                }
            }
        });
        let disk = self.layout().guests().join("disk.qcow2");
        let digest = digest(&fs::read(&disk).at(&disk)?).replace("sha256:", "");
        let begin = Instant::now();
        let mut posted = BTreeMap::new();
        for index in 0..burst.environments {
            let due = begin + Duration::from_millis(burst.every_ms * index as u64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let name = format!("ve{index}");
            post(&proxy.address, &path(), &manifest(&name, &digest))?;
            posted.insert(name, Instant::now());
        }
        let mut took = BTreeMap::new();
        let deadline = Instant::now() + ALL_READY_WITHIN;
        while took.len() < burst.environments {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((name, seen)) = events.recv_timeout(left) else { break };
            if let Some(at) = posted.get(&name) {
                took.entry(name).or_insert(seen.saturating_duration_since(*at).as_secs_f64());
            }
        }
        Ok(took.into_values().collect())
    }

    fn proxy(&self) -> Result<Proxy> {
        let mut command = self.kubectl_command();
        command.args(["proxy", "--port=0"]).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|source| LabError::Start { program: "kubectl".into(), source })?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(|error| unexpected("kubectl proxy", error))?;
        }
        // "Starting to serve on 127.0.0.1:12345"
        let address = line.split_whitespace().last().unwrap_or_default().to_owned();
        let proxy = Proxy { child, address };
        wait_for("kubectl proxy", Duration::from_secs(10), "it says nothing", || {
            TcpStream::connect(&proxy.address).is_ok()
        })?;
        Ok(proxy)
    }

    /// What each agent's own metrics say, the processor averaged over a while.
    fn agents(&self) -> Result<BTreeMap<String, Agent>> {
        let ask = || -> Result<BTreeMap<String, (f64, f64)>> {
            let nodes = self.nodes().into_iter();
            nodes.map(|node| Ok((node.clone(), self.process_of(&node)?))).collect()
        };
        let before = ask()?;
        let began = Instant::now();
        thread::sleep(CPU_WINDOW);
        let after = ask()?;
        let window = began.elapsed().as_secs_f64();
        let agents = after.into_iter().map(|(node, (resident, cpu))| {
            let used = cpu - before.get(&node).map_or(cpu, |(_, cpu)| *cpu);
            let agent = Agent {
                resident_mib: resident / f64::from(1 << 20),
                cpu_percent: 100.0 * used / window,
            };
            (node, agent)
        });
        Ok(agents.collect())
    }

    /// Resident bytes and seconds of processor of a node's agent.
    fn process_of(&self, node: &str) -> Result<(f64, f64)> {
        let page = self.exec(node, &["curl", "-sf", "http://127.0.0.1:7401/metrics"])?;
        let value = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
            number.ok_or_else(|| unexpected("the agent's metrics", format!("no {name}")))
        };
        Ok((value("process_resident_memory_bytes")?, value("process_cpu_seconds_total")?))
    }
}

fn path() -> String {
    format!("/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/virtualenvironments")
}

fn manifest(name: &str, digest: &str) -> Value {
    // Its disk boots nothing: firmware is all that runs, so that what is measured is not the guest.
    let image = format!("file://{GUESTS_IN_NODE}/disk.qcow2");
    json!({
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": "VirtualEnvironment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"members": [{
            "name": "vm", "cpus": 1, "memory": "32Mi",
            "disks": [{"name": "root", "size": "64Mi", "image": {"url": image, "sha256": digest}}],
        }]},
    })
}

// HTTP/1.0, so that answers are neither chunked nor kept alive: what is read is what was said.
fn ask(address: &str, verb: &str, path: &str, body: &str) -> Result<TcpStream> {
    let failed = |error: std::io::Error| unexpected("kubectl proxy", error);
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    let length = body.len();
    let head = format!(
        "{verb} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).map_err(failed)?;
    stream.write_all(body.as_bytes()).map_err(failed)?;
    Ok(stream)
}

fn get(address: &str, path: &str) -> Result<TcpStream> {
    ask(address, "GET", path, "")
}

fn post(address: &str, path: &str, body: &Value) -> Result<()> {
    let mut answer = String::new();
    ask(address, "POST", path, &body.to_string())?
        .read_to_string(&mut answer)
        .map_err(|error| unexpected("the answer to an apply", error))?;
    match answer.split_whitespace().nth(1) {
        Some("201") => Ok(()),
        _ => Err(unexpected("the answer to an apply", answer)),
    }
}

/// The environment that a line of the watch shows to be ready.
fn ready_in(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line).ok()?;
    let object = &event["object"];
    let conditions = object["status"]["conditions"].as_array()?;
    let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    ready.then(|| object["metadata"]["name"].as_str().map(str::to_owned))?
}

fn writes(audit: &[Request]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let ours = |request: &&Request| {
        request.complete
            && request.verb != "watch"
            && request.user == AGENT
            && request.namespace == NAMESPACE
            && request.code < 300
    };
    for request in audit.iter().filter(ours) {
        let what = match request.subresource.as_str() {
            "" => request.resource.clone(),
            sub => format!("{}/{sub}", request.resource),
        };
        *counts.entry(format!("{} {what}", request.verb)).or_default() += 1;
    }
    counts
}

/// Nodes whose agents have a watch of all environments open.
fn watchers(audit: &[Request]) -> Vec<String> {
    let mut open: BTreeMap<&str, i64> = BTreeMap::new();
    let watches = audit.iter().filter(|request| {
        request.verb == "watch"
            && request.user == AGENT
            && request.resource == "virtualenvironments"
    });
    for watch in watches {
        let node = watch.node.as_deref().unwrap_or("?");
        *open.entry(node).or_default() += if watch.complete { -1 } else { 1 };
    }
    let open = open.into_iter().filter(|(_, count)| *count > 0);
    open.map(|(node, _)| node.to_owned()).collect()
}

impl Measured {
    /// For people.
    pub fn table(&self, burst: Burst) -> String {
        let [half, most, all] = self.ready_s;
        let total: usize = self.writes.values().sum();
        let each = |count: usize| count as f64 / burst.environments as f64;
        let mut text = format!(
            "create to Ready   {} of {}: p50 {half:.2} s, p95 {most:.2} s, all {all:.2} s\n\
             API writes        {:.2} per environment\n",
            self.ready,
            burst.environments,
            each(total)
        );
        for (what, count) in &self.writes {
            let _ = writeln!(text, "                  {:.2} {what}", each(*count));
        }
        let _ = writeln!(text, "watch all         {}", self.watchers.join(", "));
        for (node, [idle, busy]) in &self.agents {
            let _ = writeln!(
                text,
                "agent of {node:<8} {:.1} MiB and {:.2} % of a processor without VMs, {:.1} MiB and {:.2} % with all",
                idle.resident_mib, idle.cpu_percent, busy.resident_mib, busy.cpu_percent
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(verb: &str, resource: &str, complete: bool) -> Request {
        Request {
            at: String::new(),
            user: AGENT.into(),
            node: Some("n1".into()),
            verb: verb.into(),
            group: GROUP.into(),
            resource: resource.into(),
            subresource: String::new(),
            namespace: NAMESPACE.into(),
            name: String::new(),
            code: 200,
            complete,
        }
    }

    #[test]
    fn a_watch_that_has_ended_is_open_no_more() {
        let watch = |complete| request("watch", "virtualenvironments", complete);
        assert_eq!(watchers(&[watch(false), watch(true)]), Vec::<String>::new());
        assert_eq!(watchers(&[watch(false), watch(true), watch(false)]), ["n1"]);
    }

    #[test]
    fn only_the_agents_own_finished_writes_are_counted() {
        let stranger = Request { user: "kubelet".into(), ..request("create", "events", true) };
        let refused = Request { code: 409, ..request("patch", "virtualenvironments", true) };
        let all = [request("create", "events", true), stranger, refused];
        assert_eq!(writes(&all), BTreeMap::from([("create events".to_owned(), 1)]));
    }

    #[test]
    fn only_ready_environments_are_told_by_a_watch() {
        let line = |status: &str| {
            json!({"type": "MODIFIED", "object": {"metadata": {"name": "a"},
                "status": {"conditions": [{"type": "Ready", "status": status}]}}})
            .to_string()
        };
        assert_eq!(ready_in(&line("True")).as_deref(), Some("a"));
        assert_eq!(ready_in(&line("False")), None);
        assert_eq!(ready_in("HTTP/1.0 200 OK"), None);
    }
}
