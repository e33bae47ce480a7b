//! Who this agent is: an ed25519 key, made at its first start and kept on its node's disk. The public half
//! is published in the node's `PhysicalNode`; peers pin it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData};
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
