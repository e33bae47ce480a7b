//! One watch, kept open for ever.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::Shared;
use super::counters::OpenWatch;
use super::request::pause;

/// Who takes a watch's events.
pub(super) trait Follower<K>: Send {
    /// Takes one.
    fn take(&mut self, event: Event<K>) -> impl Future<Output = ()> + Send;
}

/// Watches until the task ends. When the API server goes away the stream is dropped, and a new one begins
/// with a full list when it is back: a connection that only looks alive is never trusted.
pub(super) async fn follow<K, F>(
    shared: Arc<Shared>,
    api: Api<K>,
    config: watcher::Config,
    what: &'static str,
    mut follower: F,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    F: Follower<K>,
{
    let _open = OpenWatch::new(shared.counters.clone());
    let mut up = shared.reach.subscribe();
    let mut failures = 0;
    loop {
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
        let mut events = pin!(watcher(api.clone(), config.clone()));
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = up.wait_for(|up| !*up) => break,
            };
            match event {
                Some(Ok(event)) => {
                    // `Init` comes before the request that may fail.
                    if !matches!(event, Event::Init) {
                        failures = 0;
                    }
                    follower.take(event).await;
                }
                Some(Err(error)) => {
                    failures += 1;
                    shared.counters.watches_broken.add(1);
                    shared.reach.doubt();
                    tracing::warn!(%error, what, "watch broke; it is opened again");
                    tokio::time::sleep(pause(failures)).await;
                }
                None => break,
            }
        }
    }
}
