//! The tenants as everyone holds them: an immutable snapshot, replaced whole on each change.
