//! Our own certificate authority: who is who.
//!
//! Made at the first start, kept in files that only the server's user may read. It signs the server's certificate (anew at each start and
//! before it ends), the administrator's, and those of agents. What a certificate allows is decided in `auth`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use parking_lot::RwLock;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use super::Clock;
use super::auth::Identity;
use super::authn::CREDENTIAL_ID;
use super::authn::jwt::Signer;

/// How long the authority lasts.
const AUTHORITY_LASTS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a server's or an administrator's certificate lasts.
const CERTIFICATE_LASTS: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long an agent's certificate lasts. An agent renews it long before; a host that was away for longer has to join again.
const NODE_LASTS: Duration = Duration::from_secs(90 * 24 * 3600);
/// A certificate with less than this left is renewed.
const RENEW: Duration = Duration::from_secs(30 * 24 * 3600);
/// Clocks of hosts differ: certificates are good from a little before now.
const SKEW: Duration = Duration::from_secs(3600);

/// The authority. Shared by everything that signs or checks.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
    clock: Clock,
    /// The key of service accounts' tokens.
    pub(super) accounts: Signer,
}

/// What a certificate request asks for.
#[derive(Clone, Debug)]
pub(super) struct Requested {
    /// The common name.
    pub(super) name: String,
    /// The organizations.
    pub(super) groups: Vec<String>,
    pem: String,
}

impl Requested {
    /// Reads a request, PEM, that its own key has signed.
    pub(super) fn read(pem: &str) -> anyhow::Result<Requested> {
        use rustls_pki_types::pem::PemObject;
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).context("read the certificate request")?;
        CertificateSigningRequestParams::from_der(&der).context("read the certificate request")?;
        let (_, request) = X509CertificationRequest::from_der(&der).context("read the certificate request")?;
        request.verify_signature().context("check that the request is signed by its own key")?;
        let subject = &request.certification_request_info.subject;
        let name = subject.iter_common_name().next().map(|n| n.as_str().map(str::to_owned)).transpose();
        let groups = subject.iter_organization().map(|o| o.as_str().map(str::to_owned)).collect::<Result<_, _>>();
        Ok(Requested {
            name: name.context("read the common name")?.unwrap_or_default(),
            groups: groups.context("read the organizations")?,
            pem: pem.to_owned(),
        })
    }
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Authority {
    /// Reads the authority from a directory, or makes it there.
    ///
    /// # Errors
    /// The directory cannot be read or written, or holds only half of an authority: it is never silently replaced, because every agent
    /// trusts the old one.
    pub fn open(directory: &Path, clock: Clock) -> anyhow::Result<Authority> {
        private_directory(directory)?;
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        if !certificate.exists() && !key.exists() {
            let made = make(clock())?;
            // The key first: a crash in between leaves a key without a certificate, which is told apart below.
            write_private(&key, &made.key)?;
            write_private(&certificate, &made.certificate)?;
        } else if !certificate.exists() {
            // Nobody has seen a certificate for this key yet: it is safe to begin again.
            let made = make(clock())?;
            write_private(&key, &made.key)?;
            write_private(&certificate, &made.certificate)?;
        }
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
        let (pem, key) = (read(&certificate)?, read(&key)?);
        let key = KeyPair::from_pem(&key).context("read the key of the certificate authority")?;
        Authority::new(pem, key, Signer::open(&directory.join("sa.key"))?, clock)
    }

    /// An authority that is only in memory, for tests.
    pub fn in_memory(clock: Clock) -> anyhow::Result<Authority> {
        let made = make(clock())?;
        Authority::new(made.certificate, KeyPair::from_pem(&made.key)?, Signer::in_memory()?, clock)
    }

    fn new(pem: String, key: KeyPair, accounts: Signer, clock: Clock) -> anyhow::Result<Authority> {
        use rustls_pki_types::pem::PemObject;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).context("read the certificate of the authority")?;
        let issuer = Issuer::from_ca_cert_der(&der, key).context("read the certificate of the authority")?;
        Ok(Authority { issuer, der, pem, clock, accounts })
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The SHA-256 of its certificate, hex: what a join token carries.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.der))
    }

    fn params(&self, name: &str, groups: &[&str], lasts: Duration) -> anyhow::Result<CertificateParams> {
        let mut params = CertificateParams::default();
        describe(&mut params, name, groups);
        valid(&mut params, (self.clock)(), lasts);
        params.serial_number = Some(serial());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    /// A client certificate with a new key.
    pub fn client(&self, name: &str, groups: &[&str]) -> anyhow::Result<Pair> {
        let mut params = self.params(name, groups, CERTIFICATE_LASTS)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The administrator's certificate: kept in the directory, renewed when it ends soon or is of another authority.
    pub fn administrator(&self, directory: &Path) -> anyhow::Result<Pair> {
        let (certificate, key) = (directory.join("admin.crt"), directory.join("admin.key"));
        if let (Ok(certificate), Ok(key)) = (fs::read_to_string(&certificate), fs::read_to_string(&key))
            && self.signed(&certificate)
        {
            return Ok(Pair { certificate, key });
        }
        let admin = Identity::admin();
        let groups: Vec<&str> = admin.groups.iter().map(String::as_str).collect();
        let pair = self.client(&admin.name, &groups)?;
        write_private(&key, &pair.key)?;
        write_private(&certificate, &pair.certificate)?;
        Ok(pair)
    }

    /// Whether a certificate is ours and lasts for a while.
    fn signed(&self, pem: &str) -> bool {
        use rustls_pki_types::pem::PemObject;
        let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
        let (Ok((_, certificate)), Ok((_, authority))) = (X509Certificate::from_der(&der), X509Certificate::from_der(&self.der))
        else {
            return false;
        };
        let soon = (self.clock)().as_second() + RENEW.as_secs() as i64;
        certificate.verify_signature(Some(authority.public_key())).is_ok() && certificate.validity().not_after.timestamp() > soon
    }

    /// Signs an agent's request. Of the request only the key counts; the name is what the caller found out.
    ///
    /// Returns the certificate, PEM, and the SHA-256 of its public key.
    ///
    /// # Errors
    /// The request is not well-formed, or not signed by its own key.
    pub fn sign(&self, request: &str, name: &str, groups: &[&str]) -> anyhow::Result<(String, String)> {
        self.sign_for(request, name, groups, NODE_LASTS)
    }

    /// Signs a request as it asks to be: name and groups are its own. Whether it may have them was decided before.
    pub(super) fn sign_as_asked(&self, request: &Requested, lasts: Duration) -> anyhow::Result<(String, String)> {
        let groups: Vec<&str> = request.groups.iter().map(String::as_str).collect();
        self.sign_for(&request.pem, &request.name, &groups, lasts)
    }

    fn sign_for(&self, request: &str, name: &str, groups: &[&str], lasts: Duration) -> anyhow::Result<(String, String)> {
        let mut request = CertificateSigningRequestParams::from_pem(request).context("read the certificate request")?;
        let mut params = self.params(name, groups, lasts)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.params = params;
        let certificate = request.signed_by(&self.issuer).context("sign the certificate")?;
        let identity = identify(certificate.der()).context("read the certificate that was just signed")?;
        Ok((certificate.pem(), identity.key.unwrap_or_default()))
    }

    fn server_key(&self, names: &[String], provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
        let mut params = self.params("portolan", &[], CERTIFICATE_LASTS)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => match name.as_str().try_into() {
                    Ok(name) => SanType::DnsName(name),
                    Err(_) => continue,
                },
            });
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = provider.key_provider.load_private_key(private).context("load the server's key")?;
        Ok(CertifiedKey::new(vec![certificate.der().clone(), self.der.clone()], signer))
    }

    /// What a TLS listener needs: our certificate for these names, and the demand that client certificates, where they are shown, are
    /// ours. Renews itself.
    pub fn listener(self: &Arc<Self>, names: Vec<String>) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).context("trust our own authority")?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .context("check client certificates")?;
        let current = Arc::new(self.server_key(&names, &provider)?);
        let renewing = Renewing {
            authority: self.clone(),
            names,
            provider: provider.clone(),
            current: RwLock::new((current, (self.clock)())),
        };
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(renewing));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The server's certificate, which is replaced while the server runs.
struct Renewing {
    authority: Arc<Authority>,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    current: RwLock<(Arc<CertifiedKey>, Timestamp)>,
}

impl std::fmt::Debug for Renewing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewing").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = (self.authority.clock)();
        let (current, since) = self.current.read().clone();
        let old = now.as_second() - since.as_second() > (CERTIFICATE_LASTS - RENEW).as_secs() as i64;
        if !old {
            return Some(current);
        }
        match self.authority.server_key(&self.names, &self.provider) {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                *self.current.write() = (fresh.clone(), now);
                Some(fresh)
            }
            Err(error) => {
                tracing::warn!("renew the server's certificate: {error:#}");
                Some(current)
            }
        }
    }
}

/// Who a certificate says that somebody is. The TLS layer has checked that it is ours and in time.
pub(super) fn identify(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<String> = subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    let expires = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
    let key = hex(&Sha256::digest(certificate.public_key().raw));
    let id = format!("X509SHA256={}", hex(&Sha256::digest(der)));
    let extra = BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![id])]);
    (!name.is_empty()).then(|| Identity { name, groups, extra, expires: Some(expires), key: Some(key), ..Identity::default() })
}

fn make(now: Timestamp) -> anyhow::Result<Pair> {
    let mut params = CertificateParams::default();
    // A part of the name is random, so that two authorities of one user are not taken for one another.
    let mark: String = hex(&serial().to_bytes()).chars().take(8).collect();
    describe(&mut params, &format!("portolan-ca-{mark}"), &[]);
    valid(&mut params, now, AUTHORITY_LASTS);
    params.serial_number = Some(serial());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn describe(params: &mut CertificateParams, name: &str, groups: &[&str]) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
}

fn valid(params: &mut CertificateParams, now: Timestamp, lasts: Duration) {
    let seconds = Duration::from_secs(now.as_second().max(0).unsigned_abs());
    let now = rcgen::date_time_ymd(1970, 1, 1) + seconds;
    params.not_before = now - SKEW;
    params.not_after = now + lasts;
}

fn serial() -> SerialNumber {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    // A serial number is positive.
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Makes a directory that only we may enter.
pub fn private_directory(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make the directory {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("protect the directory {}", path.display()))
}

/// Writes a file that only we may read, all of it or nothing.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let attempt = || format!("write {}", path.display());
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(attempt),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).with_context(attempt)?;
    file.write_all(text.as_bytes()).with_context(attempt)?;
    file.sync_all().with_context(attempt)?;
    fs::rename(&draft, path).with_context(attempt)?;
    if let Some(parent) = path.parent() {
        fs::File::open(parent).and_then(|d| d.sync_all()).with_context(attempt)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Arc::new(|| "2026-11-21T10:00:00Z".parse().unwrap())
    }

    #[test]
    fn it_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pki");
        let first = Authority::open(&path, clock()).unwrap();
        let again = Authority::open(&path, clock()).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        let admin = first.administrator(&path).unwrap();
        assert_eq!(again.administrator(&path).unwrap().certificate, admin.certificate);
        for entry in fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::remove_file(path.join("ca.key")).unwrap();
        assert!(Authority::open(&path, clock()).is_err(), "half an authority is not replaced");
    }

    #[test]
    fn a_request_says_nothing_but_its_key() {
        let authority = Authority::in_memory(clock()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        describe(&mut params, "portolan-admin", &["system:masters"]);
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let (pem, hash) = authority.sign(&request, "system:node:h1", &["system:nodes"]).unwrap();
        use rustls_pki_types::pem::PemObject;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let identity = identify(&der).unwrap();
        assert_eq!((identity.host(), identity.is_master()), (Some("h1"), false));
        assert_eq!(identity.key, Some(hash));
        assert_eq!(identity.expires.unwrap().to_string(), "2027-02-19T10:00:00Z");
        assert!(authority.signed(&pem));
        assert!(!Authority::in_memory(clock()).unwrap().signed(&pem));
        assert!(
            authority.sign("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "x", &[]).is_err()
        );
    }
}
