//! `fuzz`: seeds under faults on all cores, a line per break, and the sums.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::{fs, thread};

use discovery::sim::faults::plan::{self, Shape};
use discovery::sim::fuzz::{self, Outcome};

use super::lanes;
use super::options::Fuzz;
use super::resume::Resume;
use super::stopwatch::Stopwatch;

/// Most breaks that are shrunk and shown; the others are named.
const SHOWN: usize = 5;

/// Sums over seeds.
#[derive(Default)]
struct Sums {
    seeds: u64,
    events: u64,
    fault_events: u64,
    simulated_ms: u64,
    fired: BTreeMap<&'static str, u64>,
    broken: Vec<Outcome>,
}

impl Sums {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.fault_events += outcome.fault_events;
        self.simulated_ms += outcome.simulated_ms;
        for (word, count) in &outcome.fired {
            *self.fired.entry(word).or_default() += count;
        }
        if outcome.broken.is_some() {
            self.broken.push(outcome);
        }
    }
}

/// Runs each seed; fails if one breaks something.
pub fn run(options: &Fuzz) -> Result<ExitCode, String> {
    if options.nodes == 0 {
        return Err("--nodes must be at least 1".to_owned());
    }
    let (nodes, ves, faults) = (options.nodes, options.ves, options.steps);
    let shape = Shape { nodes, ves, faults, kinds: options.faults.0.clone() };
    let words: Vec<&str> = shape.kinds.iter().map(|kind| kind.word()).collect();
    let what = format!("fuzz nodes={nodes} ves={ves} steps={faults} faults={}", words.join(","));
    let mut sums = Sums::default();
    let (mut resume, mut done) = (None, BTreeMap::new());
    if let Some(path) = &options.resume {
        let (file, known) = Resume::open(path, &what)?;
        (resume, done) = (Some(file), known);
    }
    let mut stopwatch = Stopwatch::start();
    let known = done.len() as u64;
    for (seed, [events, fault_events, simulated_ms]) in done.range(options.seeds.clone()) {
        let (seed, events) = (*seed, *events);
        let (fault_events, simulated_ms) = (*fault_events, *simulated_ms);
        sums.add(Outcome { seed, events, fault_events, simulated_ms, ..Outcome::default() });
    }
    let before = sums.fault_events;
    let seeds = options.seeds.clone().filter(|seed| !done.contains_key(seed)).collect::<Vec<_>>();
    let threads = options.threads.or_else(|| thread::available_parallelism().ok().map(Into::into));
    let mut failed = None;
    in_order(&seeds, threads.unwrap_or(1), &|seed| fuzz::run(seed, &shape), &mut |outcome| {
        if let Some(resume) = &mut resume
            && let Err(error) = resume.note(&outcome)
        {
            failed = Some(error);
        }
        if let Some(finding) = &outcome.broken {
            println!("seed {}: {}: {}", outcome.seed, finding.invariant, finding.what);
        }
        sums.add(outcome);
        if stopwatch.should_tell() {
            let rate = (sums.fault_events - before) as f64 / stopwatch.seconds() * 60.0;
            eprintln!(
                "{} of {} seeds, {:.2e} fault-events, {rate:.2e} a minute, {} broken",
                sums.seeds,
                options.seeds.end - options.seeds.start,
                sums.fault_events as f64,
                sums.broken.len()
            );
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let took = stopwatch.seconds();
    for outcome in sums.broken.iter().take(SHOWN) {
        show(outcome, &shape, options);
    }
    if let (Some(path), Some(seed)) = (&options.picture, to_draw(&options.seeds, &sums)) {
        draw(seed, &shape, &sums, options.shrink, path)?;
    }
    println!(
        "{} seeds, {} events, {} of them while faults were on, {:.1} h of virtual time, {} broken",
        sums.seeds,
        sums.events,
        sums.fault_events,
        sums.simulated_ms as f64 / 3.6e6,
        sums.broken.len()
    );
    let fired: Vec<String> = sums.fired.iter().map(|(word, n)| format!("{word} {n}")).collect();
    if known == 0 {
        println!("faults that fired: {}", fired.join(", "));
    }
    if !options.no_wall {
        let rate = (sums.fault_events - before) as f64 / took * 60.0;
        println!("{took:.1} s, {rate:.2e} fault-events a minute");
    }
    Ok(if sums.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs seeds on so many threads, and takes what comes of them in their order.
pub fn in_order<T: Send>(
    seeds: &[u64],
    threads: usize,
    run: &(dyn Fn(u64) -> T + Sync),
    take: &mut dyn FnMut(T),
) {
    let (next, (tell, told)) = (AtomicU64::new(0), mpsc::channel::<(u64, T)>());
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, seeds.len().max(1)) {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = seeds.get(index as usize) else { return };
                    if tell.send((index, run(*seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (index, outcome) in told {
            early.insert(index, outcome);
            while let Some(outcome) = early.remove(&due) {
                due += 1;
                take(outcome);
            }
        }
    });
}

/// Which seed the picture is of: the first that broke something, or the only one.
fn to_draw(seeds: &Range<u64>, sums: &Sums) -> Option<u64> {
    let only = (seeds.end - seeds.start == 1).then_some(seeds.start);
    sums.broken.first().map(|outcome| outcome.seed).or(only)
}

fn show(outcome: &Outcome, shape: &Shape, options: &Fuzz) {
    let Some(finding) = &outcome.broken else { return };
    let steps = fuzz::shrink(outcome.seed, shape, finding, options.shrink);
    let played = fuzz::play(outcome.seed, shape, &steps, true);
    let all = plan::draw(outcome.seed, shape).len();
    println!("\nseed {}, {} of {all} steps:", outcome.seed, steps.len());
    print!("{}", fuzz::trace(&steps, &played));
}

fn draw(
    seed: u64,
    shape: &Shape,
    sums: &Sums,
    tries: usize,
    path: &std::path::Path,
) -> Result<(), String> {
    let broken = sums.broken.first().and_then(|outcome| outcome.broken.as_ref());
    let steps = match broken {
        Some(finding) => fuzz::shrink(seed, shape, finding, tries),
        None => plan::draw(seed, shape),
    };
    let played = fuzz::play(seed, shape, &steps, true);
    let svg = lanes::draw(&steps, &played, shape.nodes)?;
    fs::write(path, svg).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_of_seeds_is_taken_in_their_order_on_any_number_of_threads() {
        for threads in [1, 2, 7] {
            let (seeds, mut taken) = ((0..50).collect::<Vec<u64>>(), Vec::new());
            let slow =
                |seed: u64| (0..(seed * 7919) % 97 * 100).fold(seed, |sum, n| sum.max(n % 2));
            in_order(&seeds, threads, &slow, &mut |seed| taken.push(seed));
            assert_eq!(taken.len(), 50);
            assert!(taken.is_sorted(), "{threads} threads: {taken:?}");
        }
    }
}
