//! The operator's side, `/admin/v1` (section 11): tenants, tokens, threads, endpoints and dead letters. Secrets go in and never come out.

pub mod certificates;
pub mod drain;
pub mod hooks;
pub mod nodes;
pub mod tenants;
pub mod threads;
pub mod tokens;
pub mod view;
