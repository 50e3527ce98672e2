//! The certificate that the router shows to those who call it (`[tls]` in `tract.toml`), and its renewal.

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io};
use tract_actors::ports::Clock;

/// How often the files are looked at.
const LOOK_EVERY_MS: u64 = 5_000;
/// Longer than any chain or key; a device file must not fill the memory.
const MAX_FILE: u64 = 1024 * 1024;

/// `[tls]`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The leaf's private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

/// Why the files cannot be used. Shows nothing of what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// The chain cannot be read.
    #[error("{path}: cannot be read: {1}", path = .0.display())]
    CertUnreadable(PathBuf, io::Error),
    /// The key cannot be read.
    #[error("{path}: cannot be read: {1}", path = .0.display())]
    KeyUnreadable(PathBuf, io::Error),
    /// The chain is not PEM.
    #[error("{path}: holds no PEM certificate", path = .0.display())]
    NoCertificate(PathBuf),
    /// The key is not PEM.
    #[error("{path}: holds no PEM private key (PKCS#8, PKCS#1 or SEC1, not encrypted)", path = .0.display())]
    NoKey(PathBuf),
    /// The key is another certificate's, or of a kind that is not supported.
    #[error("the certificate and the key cannot be used together: {0}")]
    Mismatch(rustls::Error),
}

impl TlsFault {
    /// Which setting is at fault.
    pub fn key(&self) -> &'static str {
        match self {
            Self::CertUnreadable(..) | Self::NoCertificate(_) | Self::Mismatch(_) => "tls.cert",
            Self::KeyUnreadable(..) | Self::NoKey(_) => "tls.key",
        }
    }
}

/// What was read from the files.
#[derive(Clone)]
pub struct Loaded {
    config: Arc<ServerConfig>,
    mark: Mark,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

/// Tells contents apart without keeping a copy of the key. Contents and not times: what is mounted by an orchestrator
/// changes by links, and two writes can fall into one tick of the file system's clock.
type Mark = [u8; 32];

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl TlsFiles {
    fn contents(&self) -> Result<(Vec<u8>, Vec<u8>, Mark), TlsFault> {
        let cert = read(&self.cert).map_err(|e| TlsFault::CertUnreadable(self.cert.clone(), e))?;
        let key = read(&self.key).map_err(|e| TlsFault::KeyUnreadable(self.key.clone(), e))?;
        let mark = Sha256::new().chain_update(Sha256::digest(&cert)).chain_update(Sha256::digest(&key)).finalize();
        Ok((cert, key, mark.into()))
    }

    /// Reads and checks them.
    pub fn load(&self) -> Result<Loaded, TlsFault> {
        let (cert, key, mark) = self.contents()?;
        let config = self.config(&cert, &key)?;
        Ok(Loaded { config, mark })
    }

    /// What is in the files now, if it is something else than what was tried last; and what has been tried then.
    fn look(&self, tried: Option<Mark>) -> (Result<Option<Arc<ServerConfig>>, TlsFault>, Option<Mark>) {
        match self.contents() {
            Ok((_, _, mark)) if Some(mark) == tried => (Ok(None), tried),
            Ok((cert, key, mark)) => (self.config(&cert, &key).map(Some), Some(mark)),
            Err(fault) => (Err(fault), None),
        }
    }

    fn config(&self, cert: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TlsFault> {
        let no_certificate = || TlsFault::NoCertificate(self.cert.clone());
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(cert).collect::<Result<_, _>>().map_err(|_| no_certificate())?;
        if chain.is_empty() {
            return Err(no_certificate());
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsFault::NoKey(self.key.clone()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(TlsFault::Mismatch)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The certificate in use. New handshakes take what is newest; connections that are open keep theirs.
pub struct Certificate {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    loaded: Mark,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Loads it for the first time.
    pub fn load(files: TlsFiles) -> Result<Self, TlsFault> {
        let Loaded { config, mark } = files.load()?;
        Ok(Self { files, current: ArcSwap::new(config), loaded: mark })
    }

    /// For the next handshake.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Looks at the files for ever. What changed and is sound takes effect; what is not is logged once and the old one
    /// stays: a renewal that was half written, or went wrong, must not take the router off the net.
    pub async fn renew(self: Arc<Self>, clock: Arc<dyn Clock>) {
        let (mut tried, mut complaint) = (Some(self.loaded), String::new());
        loop {
            clock.sleep_until(clock.now().plus(LOOK_EVERY_MS)).await;
            let files = self.files.clone();
            let looked = tokio::task::spawn_blocking(move || files.look(tried));
            let Ok((outcome, mark)) = looked.await else { return };
            tried = mark;
            match outcome {
                Ok(None) => {}
                Ok(Some(config)) => {
                    self.current.store(config);
                    complaint.clear();
                    tracing::info!(cert = %self.files.cert.display(), "the TLS certificate was renewed");
                }
                Err(fault) => {
                    let said = fault.to_string();
                    if said != complaint {
                        tracing::error!(error = %fault, "the new TLS certificate is not usable; the old one stays");
                        complaint = said;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(directory: &Path, name: &str) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files =
            TlsFiles { cert: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
        fs::write(&files.cert, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn only_a_sound_pair_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (pair(directory.path(), "one"), pair(directory.path(), "other"));
        assert!(one.load().is_ok());
        let crossed = TlsFiles { cert: one.cert.clone(), key: other.key.clone() };
        assert!(matches!(crossed.load(), Err(TlsFault::Mismatch(_))));
        let swapped = TlsFiles { cert: one.key.clone(), key: one.cert.clone() };
        let fault = swapped.load().unwrap_err();
        assert!(matches!(fault, TlsFault::NoCertificate(_)) && fault.key() == "tls.cert");
        let missing = TlsFiles { key: directory.path().join("none"), ..one.clone() };
        assert!(matches!(missing.load(), Err(TlsFault::KeyUnreadable(..))));
        fs::write(&other.cert, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(other.load(), Err(TlsFault::NoCertificate(_))));
    }

    #[test]
    fn each_change_is_tried_once() {
        let directory = tempfile::tempdir().unwrap();
        let files = pair(directory.path(), "one");
        let loaded = files.load().unwrap();
        let (same, tried) = files.look(Some(loaded.mark));
        assert!(same.unwrap().is_none());
        fs::write(&files.key, "half written").unwrap();
        let (broken, tried) = files.look(tried);
        assert!(matches!(broken, Err(TlsFault::NoKey(_))));
        assert!(files.look(tried).0.unwrap().is_none(), "the same fault is not told again");
        fs::remove_file(&files.key).unwrap();
        let (gone, tried) = files.look(tried);
        assert!(matches!(gone, Err(TlsFault::KeyUnreadable(..))));
        pair(directory.path(), "one");
        assert!(files.look(tried).0.unwrap().is_some());
    }
}
