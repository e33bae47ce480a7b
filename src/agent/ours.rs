//! Which domains are ours: what those who start them and those who end them must agree on.
//!
//! A domain is ours when it carries metadata of our namespace *and* the uuid that follows from it. A copy of one of our
//! domains under another uuid is somebody's own.

use uuid::Uuid;

use crate::engine::id::VmId;

/// The XML namespace of our metadata.
pub const XMLNS: &str = "https://discovery.beyondtheclouds.io/xmlns/domain/1";

/// What domains' uuids are derived under. Never to change: it would orphan every domain.
const UUIDS: Uuid = Uuid::from_u128(0x6f3d_9c0e_51b7_4f0a_8a44_2d9e_c1f7_5b26);

/// The uuid of a VM's domain: the same on every node and for ever.
#[must_use]
pub fn uuid_of(id: &VmId) -> Uuid {
    let name = format!("{}/{}/{}", id.ve, id.member, id.index);
    Uuid::new_v5(&UUIDS, name.as_bytes())
}
