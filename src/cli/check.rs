//! `tract check`

use super::{ConfigFile, Failure, print, tenants_file::TenantsError, tenants_file::TenantsFile};
use crate::{
    config::{ConfigError, Settings},
    reading::Located,
    security::url::EgressRules,
};
use std::{fmt, path::PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// The tenants file
    #[arg(short, long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// How many faults were found.
#[derive(Debug)]
pub(super) struct Faults(usize);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 1 { f.write_str("1 fault") } else { write!(f, "{} faults", self.0) }
    }
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (rules, mut faults) = match Settings::load(self.config.path().as_deref()) {
            Ok(settings) => (settings.egress.rules, Vec::new()),
            // Which URLs are allowed is then unknown, and not held against the tenants.
            Err(ConfigError::Invalid(faults)) => (EgressRules { allow_private: true, allow_http: true }, faults),
            Err(error) => return Err(error.into()),
        };
        faults.extend(self.tenants(rules)?);
        if faults.is_empty() {
            return print(["ok"]);
        }
        print(&faults)?;
        Err(Failure::Faults(Faults(faults.len())))
    }

    fn tenants(&self, rules: EgressRules) -> Result<Vec<Located>, Failure> {
        let Some(path) = &self.file else { return Ok(Vec::new()) };
        match TenantsFile::load(path) {
            Ok(file) => Ok(file.check(rules)),
            Err(TenantsError::Invalid(faults)) => Ok(faults),
            Err(error) => Err(error.into()),
        }
    }
}
