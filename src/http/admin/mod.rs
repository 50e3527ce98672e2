//! The operator's side, `/admin/v1` (section 11): tenants, tokens, threads. Secrets go in and never come out.

pub mod certificates;
pub mod tenants;
pub mod threads;
pub mod tokens;
pub mod view;
