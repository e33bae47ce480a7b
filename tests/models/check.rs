//! Runs a model, and tells how much there was of it and what was found.

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Larger bounds: minutes instead of seconds.
pub fn large() -> bool {
    std::env::var("DISCOVERY_MODELS").is_ok_and(|bounds| bounds == "large")
}

fn threads() -> usize {
    if large() { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 }
}

/// Tries everything: all that is never to be is not, and all that may be is reached.
pub fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let found = HasDiscoveries::AnyFailures;
    let checker = model.checker().threads(threads()).finish_when(found).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} states, {} steps, depth {depth}", checker.state_count());
    for property in checker.model().properties() {
        let path = checker.discovery(property.name);
        match (property.expectation, path) {
            (Expectation::Sometimes, None) => panic!("{name}: never: {}", property.name),
            (Expectation::Sometimes, Some(_)) => println!("  {}", property.name),
            (_, None) => {}
            (_, Some(path)) => {
                let actions = path.into_actions();
                let actions = shortest(checker.model(), property.name, actions);
                let story = story(checker.model(), actions);
                panic!("{name}: not so: {}\n{story}", property.name);
            }
        }
    }
}

/// Finds how a world that is broken on purpose comes to break what is to hold, and tells it.
pub fn breaks<M>(name: &str, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = model.checker().threads(threads()).finish_when(found).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(property) else {
        panic!("{name}: {states} states, and in all of them: {property}");
    };
    let actions = shortest(checker.model(), property, path.into_actions());
    let count = actions.len();
    let story = story(checker.model(), actions);
    println!("{name}: after {states} states, in {count} steps not so: {property}\n{story}");
}

/// What is left of a story when everything is taken out of it that it can do without.
fn shortest<M>(model: &M, property: &'static str, mut actions: Vec<M::Action>) -> Vec<M::Action>
where
    M: Model,
    M::State: Clone,
    M::Action: Clone + PartialEq,
{
    let property = model.property(property);
    let breaks = |actions: &[M::Action]| {
        let mut state = model.init_states().swap_remove(0);
        for action in actions {
            let mut possible = Vec::new();
            model.actions(&state, &mut possible);
            if !possible.contains(action) {
                return false;
            }
            let Some(next) = model.next_state(&state, action.clone()) else { return false };
            state = next;
        }
        !(property.condition)(model, &state)
    };
    let mut at = actions.len();
    while at > 0 {
        at -= 1;
        let mut without = actions.clone();
        without.remove(at);
        if breaks(&without) {
            actions = without;
            at = actions.len();
        }
    }
    actions
}

fn story<M>(model: &M, actions: Vec<M::Action>) -> String
where
    M: Model,
    M::Action: Debug,
{
    let lines = actions.iter().enumerate();
    lines
        .map(|(number, action)| format!("  {:>3}. {}\n", number + 1, model.format_action(action)))
        .collect()
}
