//! What is tested: a hypervisor behind its port, its reports, and hands that act behind its back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use discovery::agent::ports::Hypervisor;
use discovery::engine::effect::HypervisorCommand;
use discovery::engine::host::{DomainSeen, Failure};
use discovery::engine::id::{VeName, VmId};
use discovery::engine::input::{HypervisorInput, Input};
use discovery::engine::spec::{Boot, Recovery, RunStrategy, Terms, VmDefinition};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;

use super::hands::Hands;

/// Anything takes less than this, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(90);

pub type Ended = Result<Option<DomainSeen>, Failure>;

pub struct Subject {
    hypervisor: Arc<dyn Hypervisor>,
    inputs: Receiver<Input>,
    pub hands: Box<dyn Hands>,
    runtime: Runtime,
    next_request: u64,
    /// Requests that have not ended, by number.
    open: BTreeMap<u64, VmId>,
}

impl Subject {
    pub fn new(
        hypervisor: Arc<dyn Hypervisor>,
        inputs: Receiver<Input>,
        hands: Box<dyn Hands>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime to wait with");
        Self { hypervisor, inputs, hands, runtime, next_request: 1, open: BTreeMap::new() }
    }

    /// Waits for the first report that `want` takes; checks that each command ends once.
    pub fn expect<T>(
        &mut self,
        what: &str,
        mut want: impl FnMut(&HypervisorInput) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = self
                .runtime
                .block_on(async { tokio::time::timeout(left, self.inputs.recv()).await });
            let Ok(Some(Input::Hypervisor(input))) = next else {
                panic!("waited for {what}; got {next:?}, and before it {others:#?}");
            };
            if let HypervisorInput::Done { request, id, .. } = &input {
                let of = self.open.remove(request);
                assert_eq!(of.as_ref(), Some(id), "request {request} ends once");
            }
            if let Some(value) = want(&input) {
                return value;
            }
            others.push(input);
        }
    }

    pub fn submit(&mut self, command: HypervisorCommand) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.open.insert(request, command.vm().clone());
        self.hypervisor.submit(request, command);
        request
    }

    /// A command that has no end of its own.
    #[allow(dead_code, reason = "each suite takes what it needs")]
    pub fn tell(&mut self, command: HypervisorCommand) {
        self.hypervisor.submit(0, command);
    }

    pub fn done(&mut self, request: u64) -> Ended {
        self.expect(&format!("the end of request {request}"), |input| match input {
            HypervisorInput::Done { request: of, result, .. } if *of == request => {
                Some(result.clone())
            }
            _ => None,
        })
    }

    pub fn command(&mut self, command: HypervisorCommand) -> Ended {
        let request = self.submit(command);
        self.done(request)
    }

    pub fn run(&mut self, definition: &VmDefinition) -> DomainSeen {
        let ended = self.command(HypervisorCommand::Run(Box::new(definition.clone())));
        ended.expect("it runs").expect("there is a domain")
    }

    pub fn remove(&mut self, definition: &VmDefinition) {
        let ended = self.command(HypervisorCommand::Remove(definition.id.clone()));
        assert_eq!(ended, Ok(None), "removed");
    }

    /// Waits for a report of this VM's domain that `want` takes.
    pub fn seen(
        &mut self,
        id: &VmId,
        what: &str,
        want: impl Fn(&DomainSeen) -> bool,
    ) -> DomainSeen {
        self.expect(what, |input| {
            let seen = match input {
                HypervisorInput::Domain(seen) => Some(seen),
                HypervisorInput::Domains(all) => all.iter().find(|seen| seen.id == *id),
                _ => None,
            };
            seen.filter(|seen| seen.id == *id && want(seen)).cloned()
        })
    }
}

/// A VM of 64 MiB without disks: it runs its firmware, which is all that most of the suite needs.
pub fn vm(ve: &str) -> VmDefinition {
    VmDefinition {
        id: VmId { ve: format!("uid-{ve}").as_str().into(), member: "web".into(), index: 0 },
        ve: VeName::new("default", ve),
        epoch: 1,
        revision: 1,
        cpus: 1,
        memory: 64 << 20,
        boot: Boot::Disk,
        disks: Vec::new(),
        run_strategy: RunStrategy::Always,
        terms: Terms::default(),
        recovery: Recovery::default(),
        depends: false,
    }
}
