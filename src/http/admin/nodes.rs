//! The nodes that share a store: each serves any request, and acts for its share of the partitions.

use crate::http::Edge;
use crate::http::auth::Admin;
use crate::wire;
use axum::Json as Answered;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use tract_actors::ports::Node;
use tract_domain::Timestamp;
use utoipa::ToSchema;

/// All nodes.
#[derive(Debug, Serialize, ToSchema)]
pub struct Nodes {
    /// Into how many partitions the store is divided, as far as nodes share them: 1 where only one node can have it open.
    partitions: u16,
    nodes: Vec<NodeView>,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// Its `node_id`.
    node_id: String,
    /// The very process: another one after each start.
    instance: String,
    /// Whether it is the one that answers.
    this: bool,
    /// Since when it runs.
    started_at: String,
    /// How long ago it was heard of, in milliseconds. After 5 s the others take over from it.
    seen_ms_ago: u64,
    /// How many partitions it delivers from, and fires timers of.
    partitions: usize,
    /// It is about to stop.
    draining: bool,
}

/// `GET /admin/v1/nodes`
pub async fn list(State(edge): State<Arc<Edge>>, _: Admin) -> Answered<Nodes> {
    let mut nodes = edge.store.nodes();
    if nodes.is_empty() {
        nodes.push(Node {
            node_id: edge.node_id.clone(),
            instance: edge.node_id.clone(),
            started_at_ms: edge.started_at.0.unsigned_abs(),
            seen_ms_ago: 0,
            strands: edge.store.held().borrow().len(),
            draining: edge.readiness.is_draining(),
            is_this: true,
        });
    }
    let nodes = nodes.into_iter().map(|node| NodeView {
        started_at: wire::time(Timestamp(node.started_at_ms.cast_signed())),
        node_id: node.node_id,
        instance: node.instance,
        this: node.is_this,
        seen_ms_ago: node.seen_ms_ago,
        partitions: node.strands,
        draining: node.draining,
    });
    Answered(Nodes { partitions: edge.store.strands(), nodes: nodes.collect() })
}
