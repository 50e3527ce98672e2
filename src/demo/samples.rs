//! The sample bot and agent tool, the very files of `examples/`: they depend on nothing of this crate, so what the demo
//! shows works for anybody who has only the contract.

#[path = "../../examples/sample_ect/desk.rs"]
pub mod desk;
#[path = "../../examples/sample_ect/ect.rs"]
pub mod ect;
#[path = "../../examples/sample_iva/iva.rs"]
pub mod iva;
#[path = "../../examples/webhook/mod.rs"]
pub mod webhook;
