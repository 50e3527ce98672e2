//! Reading `tenants.toml`, with the certificates that it names put in as text.

use crate::{
    reading::{Fault, Located, Source},
    security::url::EgressRules,
    tenancy::{certificate::MAX_CERTIFICATE, declaration::Declaration},
};
use serde_json::Value;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// A tenants file.
pub(super) struct TenantsFile {
    source: Source,
    unreadable: Vec<Fault>,
}

/// Why a tenants file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TenantsError {
    #[error("{}: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: io::Error },
    #[error("{}", one_line(.0))]
    Invalid(Vec<Located>),
}

fn one_line(faults: &[Located]) -> String {
    match faults {
        [] => "the tenants file is not valid".to_owned(),
        [fault] => fault.to_string(),
        [fault, rest @ ..] => format!("{fault} (and {} more; `tract check -f` shows all)", rest.len()),
    }
}

impl TenantsFile {
    /// Reads the file and the certificates that it names, relative to the file.
    pub(super) fn load(path: &Path) -> Result<Self, TenantsError> {
        let unreadable = |reason| TenantsError::Unreadable { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut source = Source::parse(&path.display().to_string(), &text).map_err(TenantsError::Invalid)?;
        let unreadable = inline_certificates(&mut source.value, path.parent().unwrap_or(Path::new("")));
        Ok(Self { source, unreadable })
    }

    /// What it declares, or all that is wrong with it by itself.
    pub(super) fn declaration(&self) -> Result<Declaration, TenantsError> {
        let (declaration, faults) = Declaration::read(&self.source.value);
        let faults = self.with_unreadable(faults);
        if faults.is_empty() { Ok(declaration) } else { Err(TenantsError::Invalid(self.source.locate_all(faults))) }
    }

    /// All that is wrong with it, receivers that nobody declares and URLs that the settings do not allow included.
    pub(super) fn check(&self, rules: EgressRules) -> Vec<Located> {
        self.source.locate_all(self.with_unreadable(Declaration::check(&self.source.value, rules)))
    }

    /// The line of a key, such as `client[0]`.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        self.source.line(key)
    }

    /// The router's own words about keys of this file, with their lines.
    pub(super) fn locate(&self, told: &str) -> Option<TenantsError> {
        let located = |line: &str| {
            let (key, what) = line.split_once(": ")?;
            let ours = key.starts_with("ect[") || key.starts_with("client[");
            ours.then(|| self.source.locate(Fault::new(key, what)))
        };
        told.lines().map(located).collect::<Option<Vec<_>>>().filter(|l| !l.is_empty()).map(TenantsError::Invalid)
    }

    /// A certificate file that cannot be read is told once, as that.
    fn with_unreadable(&self, mut faults: Vec<Fault>) -> Vec<Fault> {
        faults.retain(|f| self.unreadable.iter().all(|u| u.key != f.key));
        faults.extend(self.unreadable.iter().cloned());
        faults
    }
}

/// Replaces file names by what is in the files.
fn inline_certificates(value: &mut Value, directory: &Path) -> Vec<Fault> {
    let mut unreadable = Vec::new();
    let ects = value.get_mut("ect").and_then(Value::as_array_mut).into_iter().flatten();
    for (n, ect) in ects.enumerate() {
        let certificates = ect.get_mut("certificates").and_then(Value::as_array_mut).into_iter().flatten();
        for (m, certificate) in certificates.enumerate() {
            let Some(name) = certificate.as_str().filter(|text| !text.contains("-----BEGIN")) else { continue };
            match read_bounded(&directory.join(name)) {
                Ok(text) => *certificate = Value::from(text),
                Err(error) => {
                    unreadable.push(Fault::new(format!("ect[{n}].certificates[{m}]"), format!("{name}: {error}")));
                }
            }
        }
    }
    unreadable
}

/// Reads a little more than any certificate holds, so that a slip of the name does not read a disk.
fn read_bounded(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_CERTIFICATE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
