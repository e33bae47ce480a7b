//! Who the peers are, as their `PhysicalNode`s say. They are listed, never watched: with N agents, watching
//! would cost N copies of each change.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::request::{RequestError, about, pause};
use crate::agent::ports::{PeerIdentity, PeerNews, Stranger};
use crate::api::PhysicalNode;
use crate::engine::id::NodeName;

/// How often one stranger's key is looked up at most.
const SAME_STRANGER: Duration = Duration::from_secs(10);
/// Shortest time between two listings for strangers, whoever they are: anybody can make up keys.
const STRANGERS_AT_MOST: Duration = Duration::from_secs(1);
/// How many strangers' keys are remembered.
const STRANGERS_REMEMBERED: usize = 256;
/// How many objects one page of a list holds.
const PAGE: u32 = 500;

/// Lists at the start, when this agent's identity has been published, then slowly, and when strangers knock.
/// Of two agents that begin together, the one that publishes last thus finds the other, and knocks there.
pub(super) async fn keep_listing(shared: Arc<Shared>, mut strangers: mpsc::Receiver<Stranger>) {
    let mut peers = Peers::new(&shared);
    let mut knocks = Knocks::default();
    let mut gateway = shared.watch_ves.subscribe();
    let mut published = shared.published.subscribe();
    let mut failures = 0;
    loop {
        shared.reach.wait_up().await;
        published.mark_unchanged();
        match list(&shared).await {
            Ok(found) => {
                failures = 0;
                for news in peers.update(found) {
                    if shared.peer_news.send(news).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "cannot list PhysicalNodes");
                tokio::time::sleep(pause(failures)).await;
                continue;
            }
        }
        let listed = Instant::now();
        let listing = shared.config.listing;
        let is_gateway = gateway.borrow_and_update().on;
        let every = if is_gateway { listing.as_gateway } else { listing.otherwise };
        let next = listed + about(every);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                // A new gateway begins its faster round.
                changed = gateway.changed() => if changed.is_ok() { break },
                changed = published.changed() => if changed.is_ok() { break },
                stranger = strangers.recv() => {
                    let Some(stranger) = stranger else { return };
                    if let Some(peer) = peers.with_key(&stranger.key) {
                        // Pinned meanwhile; say it again, at the cost of nothing.
                        let _ = shared.peer_news.send(PeerNews::Known(peer)).await;
                    } else if knocks.may_look_up(stranger.key, Instant::now()) {
                        tracing::info!(from = %stranger.from, "looking up a stranger's key");
                        tokio::time::sleep_until(listed + STRANGERS_AT_MOST).await;
                        break;
                    } else {
                        shared.counters.strangers_dropped.add(1);
                    }
                }
            }
        }
    }
}

/// One full listing.
async fn list(shared: &Shared) -> Result<Vec<PhysicalNode>, RequestError> {
    shared.counters.peer_lists.add(1);
    let api: Api<PhysicalNode> = Api::all(shared.client.clone());
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = shared.read(api.list(&params)).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Which keys were looked up lately, oldest first.
#[derive(Default)]
struct Knocks(VecDeque<([u8; 32], Instant)>);

impl Knocks {
    fn may_look_up(&mut self, key: [u8; 32], now: Instant) -> bool {
        while self.0.front().is_some_and(|(_, at)| now.duration_since(*at) >= SAME_STRANGER) {
            self.0.pop_front();
        }
        if self.0.len() >= STRANGERS_REMEMBERED || self.0.iter().any(|(known, _)| *known == key) {
            return false;
        }
        self.0.push_back((key, now));
        true
    }
}

/// What the last listing said.
struct Peers {
    this: NodeName,
    known: BTreeMap<NodeName, Option<PeerIdentity>>,
}

impl Peers {
    /// Those pinned on disk count as known until a listing lacks them.
    fn new(shared: &Shared) -> Self {
        let known = shared.config.pinned.iter().map(|node| (node.clone(), None)).collect();
        Self { this: shared.config.node.clone(), known }
    }

    fn with_key(&self, key: &[u8; 32]) -> Option<PeerIdentity> {
        self.known.values().flatten().find(|peer| peer.key == *key).cloned()
    }

    /// What is new in a full listing.
    ///
    /// An agent that is not listed itself judges nobody: the definitions were installed anew, or it is
    /// revoked; both are no reason to cut the others off.
    fn update(&mut self, mut found: Vec<PhysicalNode>) -> Vec<PeerNews> {
        let name = |physical: &PhysicalNode| physical.metadata.name.clone().unwrap_or_default();
        let this_listed = found.iter().any(|physical| name(physical) == self.this.as_str());
        // Of two that publish one key, the older is believed: nobody takes a name by copying a key.
        found.sort_by_cached_key(|physical| {
            (physical.metadata.creation_timestamp.as_ref().map(|time| time.0), name(physical))
        });
        let mut news = Vec::new();
        let mut keys = BTreeMap::new();
        let mut listed = BTreeMap::new();
        for physical in &found {
            let node = NodeName::from(name(physical));
            if node == self.this {
                continue;
            }
            let identity = identity(&node, physical);
            if let Some(peer) = &identity {
                if let Some(elder) = keys.insert(peer.key, node.clone()) {
                    tracing::warn!(peer = %node, %elder, "publishes another node's key; it is not believed");
                    keys.insert(peer.key, elder);
                    continue;
                }
                if self.known.get(&node) != Some(&identity) {
                    news.push(PeerNews::Known(peer.clone()));
                }
            }
            // One that has not published yet keeps what is known of it.
            let identity = identity.or_else(|| self.known.get(&node).cloned().flatten());
            listed.insert(node, identity);
        }
        if this_listed {
            let gone = self.known.keys().filter(|node| !listed.contains_key(node));
            news.extend(gone.map(|node| PeerNews::Revoked(node.clone())));
            self.known = listed;
        } else {
            self.known.extend(listed);
        }
        news
    }
}

/// What a `PhysicalNode` publishes, if it is whole.
fn identity(node: &NodeName, physical: &PhysicalNode) -> Option<PeerIdentity> {
    let overlay = physical.status.as_ref()?.overlay.as_ref()?;
    let key = key_from_hex(&overlay.public_key)?;
    let addresses: Vec<SocketAddr> =
        overlay.addresses.iter().filter_map(|address| address.parse().ok()).collect();
    Some(PeerIdentity { node: node.clone(), key, addresses })
}

/// 64 lower-case hexadecimal digits as 32 bytes.
fn key_from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(key)
}

/// 32 bytes as 64 lower-case hexadecimal digits.
pub(super) fn key_to_hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn physical(name: &str, key: u8, created: &str) -> PhysicalNode {
        serde_json::from_value(json!({
            "apiVersion": "discovery.beyondtheclouds.io/v1alpha1", "kind": "PhysicalNode",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {},
            "status": {"overlay": {
                "publicKey": key_to_hex(&[key; 32]),
                "addresses": ["10.0.0.1:7400", "not an address"],
            }},
        }))
        .expect("the right types")
    }

    fn peers(pinned: &[&str]) -> Peers {
        let known = pinned.iter().map(|node| (NodeName::from(*node), None)).collect();
        Peers { this: "me".into(), known }
    }

    fn revoked(news: &[PeerNews]) -> Vec<String> {
        let name = |news: &PeerNews| match news {
            PeerNews::Revoked(node) => Some(node.to_string()),
            PeerNews::Known(_) => None,
        };
        news.iter().filter_map(name).collect()
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-02T00:00:00Z";

    #[test]
    fn a_listing_tells_only_what_is_new() {
        let mut peers = peers(&[]);
        let all = vec![physical("me", 1, EARLY), physical("a", 2, EARLY), physical("b", 3, EARLY)];
        assert_eq!(peers.update(all.clone()).len(), 2);
        assert_eq!(peers.update(all.clone()), vec![]);
        assert_eq!(peers.with_key(&[2; 32]).expect("known").node, NodeName::from("a"));
        let moved =
            vec![physical("me", 1, EARLY), physical("a", 9, EARLY), physical("b", 3, EARLY)];
        let news = peers.update(moved);
        assert!(matches!(&news[..], [PeerNews::Known(peer)] if peer.key == [9; 32]), "{news:?}");
        assert_eq!(revoked(&peers.update(all[..2].to_vec())), ["b"]);
    }

    #[test]
    fn a_pinned_peer_that_no_longer_exists_is_revoked_by_the_first_listing() {
        let mut peers = peers(&["a", "z"]);
        let news = peers.update(vec![physical("me", 1, EARLY), physical("a", 2, EARLY)]);
        assert_eq!(revoked(&news), ["z"]);
    }

    #[test]
    fn an_agent_that_is_not_listed_itself_revokes_nobody() {
        let mut peers = peers(&["a", "b"]);
        assert_eq!(revoked(&peers.update(vec![])), [""; 0]);
        assert_eq!(revoked(&peers.update(vec![physical("me", 1, EARLY)])), ["a", "b"]);
    }

    #[test]
    fn a_copied_key_is_not_believed() {
        let mut peers = peers(&[]);
        let news = peers.update(vec![
            physical("me", 1, EARLY),
            physical("a-thief", 2, LATE),
            physical("victim", 2, EARLY),
        ]);
        assert!(
            matches!(&news[..], [PeerNews::Known(peer)] if peer.node.as_str() == "victim"),
            "{news:?}"
        );
    }

    #[test]
    fn strangers_are_looked_up_once_in_a_while() {
        let mut knocks = Knocks::default();
        let start = Instant::now();
        assert!(knocks.may_look_up([1; 32], start));
        assert!(!knocks.may_look_up([1; 32], start + SAME_STRANGER / 2));
        assert!(knocks.may_look_up([1; 32], start + SAME_STRANGER));
        let mut asked = 0;
        for stranger in 0..10_000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&stranger.to_le_bytes());
            asked += u32::from(knocks.may_look_up(key, start + SAME_STRANGER));
        }
        assert!(asked < 256, "a flood of made-up keys is bounded: {asked}");
    }

    #[test]
    fn keys_survive_their_text() {
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 7 % 256).expect("a byte"));
        assert_eq!(key_from_hex(&key_to_hex(&key)), Some(key));
        assert_eq!(key_from_hex("zz"), None);
        assert_eq!(key_from_hex(&"é".repeat(32)), None);
    }
}
