//! Who this agent is: an ed25519 key, made at its first start and kept on its node's disk. The public half
//! is published in the node's `PhysicalNode`; peers pin it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData};
use ring::hmac;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The key's file, under the agent's state directory.
const FILE: &str = "identity.pk8";
/// Where it is written before it gets its name.
const UNFINISHED: &str = "identity.pk8.new";
/// Only the agent may read it.
const MODE: u32 = 0o600;
/// The name in every certificate. It means nothing (keys are pinned, names are not checked), but X.509
/// wants one.
const CERTIFICATE_NAME: &str = "discovery-agent";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The file is there and holds no ed25519 key. It is not replaced: a new key is a new identity, and
    /// that is for people to decide (delete the file).
    #[error("{path} holds no usable key: {reason}; delete it to give this node a new identity")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// Somebody else may read the key.
    #[error(
        "{path} may be read by others (mode {mode:o}): make it 600, or delete it for a new identity"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The random source or the certificate failed.
    #[error("cannot make a key: {0}")]
    Make(#[from] rcgen::Error),
}

/// An agent's key and the certificate it shows.
pub struct Identity {
    key: KeyPair,
    public: [u8; 32],
    certificate: CertificateDer<'static>,
}

impl Identity {
    /// Reads the key in `state_dir`, or makes one at the first start.
    ///
    /// # Errors
    /// When there is a file that cannot be used, or none can be made.
    pub fn open(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE);
        let io = |source| IdentityError::Io { path: path.clone(), source };
        match fs::read(&path) {
            Ok(bytes) => {
                let mode = fs::metadata(&path).map_err(io)?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(IdentityError::Exposed { path, mode });
                }
                let der = PrivatePkcs8KeyDer::from(bytes);
                let key =
                    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(|e| {
                        IdentityError::Damaged { path: path.clone(), reason: e.to_string() }
                    })?;
                Self::of(key)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate_for(&PKCS_ED25519)?;
                keep(state_dir, key.serialized_der()).map_err(io)?;
                Self::of(key)
            }
            Err(error) => Err(io(error)),
        }
    }

    /// An identity that is on no disk.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        Self::of(KeyPair::generate_for(&PKCS_ED25519)?)
    }

    fn of(key: KeyPair) -> Result<Self, IdentityError> {
        let public =
            key.der_bytes().try_into().map_err(|_| rcgen::Error::UnsupportedSignatureAlgorithm)?;
        let parameters = CertificateParams::new(vec![CERTIFICATE_NAME.to_owned()])?;
        let certificate = parameters.self_signed(&key)?.der().clone();
        Ok(Self { key, public, certificate })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The self-signed certificate.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// Bytes that only the holder of this key can know: the same at each start, others for each purpose.
    pub(super) fn derive(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.serialized_der());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&key, purpose.as_bytes()).as_ref());
        bytes
    }

    /// The private half, for TLS only.
    pub(super) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialized_der().to_vec()))
    }
}

/// Writes the key so that a crash leaves all of it or none: beside, synced, renamed, folder synced.
fn keep(state_dir: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(state_dir)?;
    let unfinished = state_dir.join(UNFINISHED);
    // What a crash left behind keeps its mode when it is opened again: begin anew.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, state_dir.join(FILE))?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_made_at_the_first_start_is_the_one_of_every_later_start() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state_dir = folder.path().join("made/by/the/agent");
        let first = Identity::open(&state_dir).expect("made").public();
        assert_eq!(Identity::open(&state_dir).expect("read").public(), first);
        let mode = fs::metadata(state_dir.join(FILE)).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(!state_dir.join(UNFINISHED).exists());
        let other = Identity::open(&folder.path().join("another")).expect("made").public();
        assert_ne!(other, first);
    }

    #[test]
    fn the_certificate_is_of_the_key() {
        let identity = Identity::ephemeral().expect("made");
        assert_eq!(super::super::tls::key_of(&identity.certificate()), Some(identity.public()));
    }

    #[test]
    fn a_start_that_was_interrupted_while_it_made_the_key_is_made_good() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(UNFINISHED), b"half a k").expect("room");
        let first = Identity::open(folder.path()).expect("made").public();
        assert_eq!(Identity::open(folder.path()).expect("read").public(), first);
    }

    #[test]
    fn a_damaged_or_exposed_key_is_named_and_not_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(FILE);
        Identity::open(folder.path()).expect("made");
        let whole = fs::read(&path).expect("kept");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        let error = Identity::open(folder.path()).err().expect("refused");
        assert!(matches!(error, IdentityError::Exposed { mode: 0o640, .. }), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(MODE)).expect("ours");
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).expect("room");
            let error = Identity::open(folder.path()).err().expect("refused");
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert_eq!(fs::read(&path).expect("kept"), whole[..length]);
        }
    }
}
