//! What every integration test is built with: a running router, and everybody around it.
//!
//! [`Fixture::start`] brings up the router in this process with a held clock, one client `acme`, and its whole
//! surroundings as real HTTP servers: two agent tools (`sprinkle`, `helper`), a bot, and a channel webhook. Each of
//! them is a [`Peer`]: it checks signatures, writes down what it gets, and answers as the test says.

mod api;
mod clock;
mod fixture;
mod form;
mod peer;
mod process;
mod redis;
mod redis_cluster;

pub(crate) use api::{Api, Channel, Reply, Token};
pub(crate) use clock::ManualClock;
pub(crate) use fixture::{ADMIN_TOKEN, BUSINESS, CLIENT, Fixture, JWT_KEY, Tenants, hand_off_to, start_router_with};
pub(crate) use form::Form;
pub(crate) use peer::{Answer, Peer, Received};
pub(crate) use process::{Process, Tenant};
pub(crate) use redis::{RedisServer, TestCa};
pub(crate) use redis_cluster::{RedisCluster, SharedCluster, wait_until};
