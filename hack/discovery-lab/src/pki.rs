//! The cluster's certificates: one authority, and one key pair for each program that speaks with another.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::{
    error::{AtPath, Result},
    layout::{API_SERVICE, Layout},
};

/// Who a certificate is for, in Kubernetes' words: the common name is the user, the organisation the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// File name without its ending.
    pub file: String,
    /// The user.
    pub user: String,
    /// The group, if any.
    pub group: Option<String>,
    /// Names and addresses that a server answers to.
    pub names: Vec<String>,
}

impl Subject {
    fn new(file: &str, user: &str, group: Option<&str>, names: &[&str]) -> Self {
        Self {
            file: file.into(),
            user: user.into(),
            group: group.map(Into::into),
            names: names.iter().map(ToString::to_string).collect(),
        }
    }

    /// A node's kubelet: client of the API server, and itself a server.
    pub fn kubelet(node: &str, ip: &str) -> Self {
        Self::new(node, &format!("system:node:{node}"), Some("system:nodes"), &[node, ip])
    }
}

/// The programs of the control plane, and the admin.
pub fn control_plane(layout: &Layout) -> Vec<Subject> {
    let host = layout.host_ip();
    let api_names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
        "127.0.0.1",
        &host,
        API_SERVICE,
    ];
    vec![
        Subject::new("kube-apiserver", "kube-apiserver", None, &api_names),
        Subject::new(
            "kubelet-client",
            "kube-apiserver-kubelet-client",
            Some("system:masters"),
            &[],
        ),
        Subject::new("admin", "admin", Some("system:masters"), &[]),
        Subject::new("controller-manager", "system:kube-controller-manager", None, &[&host]),
        Subject::new("scheduler", "system:kube-scheduler", None, &[&host]),
        Subject::new("kube-proxy", "system:kube-proxy", None, &[]),
    ]
}

/// Makes the authority and the service accounts' key pair, unless they are there.
pub fn ensure_authority(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).at(dir)?;
    if dir.join("ca.crt").exists() && dir.join("sa.pub").exists() {
        return Ok(());
    }
    let authority = CertifiedIssuer::self_signed(authority_params(), KeyPair::generate()?)?;
    write_secret(&dir.join("ca.key"), &authority.key().serialize_pem())?;
    let accounts = KeyPair::generate()?;
    write_secret(&dir.join("sa.key"), &accounts.serialize_pem())?;
    // The certificate and the public key come last: their presence says that all is there.
    write_secret(&dir.join("ca.crt"), &authority.pem())?;
    write_secret(&dir.join("sa.pub"), &accounts.public_key_pem())
}

/// Makes a certificate and its key, unless they are there.
pub fn ensure_certificate(dir: &Path, subject: &Subject) -> Result<()> {
    let certificate_file = dir.join(format!("{}.crt", subject.file));
    if certificate_file.exists() {
        return Ok(());
    }
    let read = |file: &str| fs::read_to_string(dir.join(file)).at(dir.join(file));
    let issuer = Issuer::new(authority_params(), KeyPair::from_pem(&read("ca.key")?)?);
    let mut params = CertificateParams::new(subject.names.clone())?;
    params.distinguished_name = name(&subject.user, subject.group.as_deref());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    write_secret(&dir.join(format!("{}.key", subject.file)), &key.serialize_pem())?;
    write_secret(&certificate_file, &params.signed_by(&key, &issuer)?.pem())
}

// The same each time: an issuer made again from these and its key signs as the first one did.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("discovery-lab", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn name(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

// Written aside and renamed, so that a killed `up` never leaves half a key behind.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, text).at(&aside)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).at(&aside)?;
    fs::rename(&aside, path).at(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    #[test]
    fn certificates_are_signed_by_the_authority_and_made_once() {
        let dir = std::env::temp_dir().join(format!("discovery-lab-pki-{}", std::process::id()));
        ensure_authority(&dir).expect("a fresh directory");
        let subject = Subject::kubelet("n1", "10.77.0.11");
        ensure_certificate(&dir, &subject).expect("the authority is there");
        let first = fs::read_to_string(dir.join("n1.crt")).expect("it was made");
        ensure_authority(&dir).expect("it is there");
        ensure_certificate(&dir, &subject).expect("it is there");
        assert_eq!(first, fs::read_to_string(dir.join("n1.crt")).expect("it was made"));
        let file = |name: &str| dir.join(name).display().to_string();
        process::run(&mut process::command(
            "openssl",
            ["verify", "-CAfile", &file("ca.crt"), &file("n1.crt")],
        ))
        .expect("openssl trusts the chain");
        fs::remove_dir_all(dir).expect("the test made it");
    }
}
