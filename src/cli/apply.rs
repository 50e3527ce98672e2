//! `tract apply`

use super::{
    Failure,
    admin::{AdminError, Router},
    block_on, print,
    tenants_file::TenantsFile,
};
use crate::tenancy::{Declaration, Made};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    /// The tenants file
    #[arg(short, long = "file", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    router: Router,
}

#[derive(Deserialize)]
struct Applied {
    made: Vec<Made>,
}

impl Apply {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = TenantsFile::load(&self.file)?;
        let declaration = file.declaration()?;
        let applied = match block_on(self.router.post::<Applied>("apply", &declaration))? {
            Ok(applied) => applied,
            Err(AdminError::Refused(told)) => {
                return Err(match file.locate(&told) {
                    Some(located) => located.into(),
                    None => AdminError::Refused(told.replace('\n', "; ")).into(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let mut made = applied.made;
        made.sort_by_key(|made| line(&file, &declaration, made));
        print(made.iter().map(|made| format!("{} {} {}", made.kind, made.of, made.value)))
    }
}

/// Where the file declares what this was made for: clients may stand before ECTs.
fn line(file: &TenantsFile, declaration: &Declaration, made: &Made) -> Option<usize> {
    let ect = || {
        let n = declaration.ects.iter().position(|e| e.ect_id.as_str() == made.of)?;
        file.line(&format!("ect[{n}]"))
    };
    let client = || {
        let id = made.of.split('/').next()?;
        let n = declaration.clients.iter().position(|c| c.client_id.as_str() == id)?;
        file.line(&format!("client[{n}]"))
    };
    if made.kind == "certificate" { ect() } else { client() }
}
